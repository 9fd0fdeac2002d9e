//! Pages of state that this instance of a function has read or written already: they are never changed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use std::collections::HashMap;

use tapeline_state::{Bucket, Head, StateError, is_page};

/// Bytes that are kept; then all of it is forgotten, which costs a read of each page.
const BYTES_MAX: usize = 24 << 20;

/// A store whose pages are read once.
#[derive(Debug)]
pub struct Cached<B> {
    store: B,
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    by_key: HashMap<String, Vec<u8>>,
    bytes: usize,
}

impl<B> Cached<B> {
    /// Nothing is kept yet.
    pub fn new(store: B) -> Self {
        Self { store, pages: Mutex::default() }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn keep(&mut self, key: &str, value: &[u8]) {
        if !is_page(key) {
            return;
        }
        if self.bytes + value.len() > BYTES_MAX {
            *self = Self::default();
        }
        self.bytes += value.len();
        let replaced = self.by_key.insert(key.to_owned(), value.to_vec());
        self.bytes -= replaced.map_or(0, |value| value.len());
    }

    fn forget(&mut self, key: &str) {
        self.bytes -= self.by_key.remove(key).map_or(0, |value| value.len());
    }
}

impl<B: Bucket> Bucket for Cached<B> {
    const VALUE_BYTES_MAX: u64 = B::VALUE_BYTES_MAX;

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StateError> {
        let mut values: Vec<Option<Vec<u8>>> = {
            let pages = self.pages();
            keys.iter().map(|key| pages.by_key.get(key).cloned()).collect()
        };
        let missing: Vec<String> =
            keys.iter().zip(&values).filter(|(_, value)| value.is_none()).map(|(key, _)| key.clone()).collect();
        if missing.is_empty() {
            return Ok(values);
        }
        let found = self.store.get_many(&missing).await?;
        let mut pages = self.pages();
        let places = values.iter_mut().filter(|value| value.is_none());
        for ((key, found), place) in missing.iter().zip(found).zip(places) {
            found.iter().for_each(|found| pages.keep(key, found));
            *place = found;
        }
        Ok(values)
    }

    async fn set_many(&self, values: &[(String, Vec<u8>)]) -> Result<(), StateError> {
        self.store.set_many(values).await?;
        let mut pages = self.pages();
        values.iter().for_each(|(key, value)| pages.keep(key, value));
        Ok(())
    }

    async fn delete_many(&self, keys: &[String]) -> Result<(), StateError> {
        {
            let mut pages = self.pages();
            keys.iter().for_each(|key| pages.forget(key));
        }
        self.store.delete_many(keys).await
    }

    async fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError> {
        self.store.increment(key, delta).await
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StateError> {
        self.store.head(key).await
    }

    async fn swap(&self, key: &str, expected: u64, head: &Head) -> Result<bool, StateError> {
        self.store.swap(key, expected, head).await
    }
}
