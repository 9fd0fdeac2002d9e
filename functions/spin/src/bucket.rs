//! Spin's key-value store, through the interface that has compare-and-swap (`wasi:keyvalue`; Spin's own has none).

#[allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, reason = "generated from wit/")]
mod bindings {
    wit_bindgen::generate!({
        world: "wasi:keyvalue/imports@0.2.0-draft2",
        path: "wit",
        generate_all,
    });
}

use std::collections::BTreeMap;

use bindings::wasi::keyvalue::{
    atomics::{self, Cas, CasError, swap},
    batch,
    store::{self, Error},
};

use tapeline_state::{Bucket, Head, StateError, page_beside};

/// The store that every Spin application has.
const LABEL: &str = "default";

/// An open store.
pub(crate) struct SpinBucket(store::Bucket);

impl SpinBucket {
    /// Opens it; the manifest must grant it: `key_value_stores = ["default"]`.
    pub(crate) fn open() -> Result<Self, StateError> {
        store::open(LABEL).map(Self).map_err(|error| failed(&error))
    }
}

impl Bucket for SpinBucket {
    /// Of its own store there is no limit but the memory of a component.
    const VALUE_BYTES_MAX: u64 = u32::MAX as u64;

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StateError> {
        if let [key] = keys {
            return Ok(vec![self.0.get(key).map_err(|error| failed(&error))?]);
        }
        // Keys without a value may be left out, and the order may be any.
        let found = batch::get_many(&self.0, keys).map_err(|error| failed(&error))?;
        let mut found: BTreeMap<String, Option<Vec<u8>>> = found.into_iter().collect();
        Ok(keys.iter().map(|key| found.remove(key).flatten()).collect())
    }

    async fn set_many(&self, values: &[(String, Vec<u8>)]) -> Result<(), StateError> {
        batch::set_many(&self.0, values).map_err(|error| failed(&error))
    }

    async fn delete_many(&self, keys: &[String]) -> Result<(), StateError> {
        batch::delete_many(&self.0, keys).map_err(|error| failed(&error))
    }

    async fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError> {
        atomics::increment(&self.0, key, delta).map_err(|error| failed(&error))
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StateError> {
        let Some(place) = self.place(key)? else { return Ok(None) };
        let corrupt = || StateError::Corrupt(place.clone());
        let found = self.0.get(&place).map_err(|error| failed(&error))?.ok_or_else(corrupt)?;
        Head::of_bytes(&found).map(Some).ok_or_else(corrupt)
    }

    async fn swap(&self, key: &str, expected: u64, head: &Head) -> Result<bool, StateError> {
        match self.place(key)? {
            Some(place) => {
                let cas = Cas::new(&self.0, &place).map_err(|error| failed(&error))?;
                let current = cas.current().map_err(|error| failed(&error))?;
                // All of it is compared, and its number is in it.
                if current.as_deref().and_then(Head::of_bytes).is_none_or(|current| current.number != expected) {
                    return Ok(false);
                }
                swapped(cas, &head.to_bytes())
            }
            None if expected == 0 => self.make_head(key, head),
            None => Ok(false),
        }
    }
}

/// Spin's own store can swap only what is there, and takes a swap from nothing for an upsert. What makes something there at
/// once is `increment` alone, which must never meet anything but a number: its store would fail from then on. So the key of a
/// head has the number of the first one for ever, and all of them are swapped where that one was put: in its page.
impl SpinBucket {
    /// Where a head is, if there is one.
    fn place(&self, key: &str) -> Result<Option<String>, StateError> {
        let Some(found) = self.0.get(key).map_err(|error| failed(&error))? else { return Ok(None) };
        let first = number_of(&found).ok_or_else(|| StateError::Corrupt(key.to_owned()))?;
        Ok((first > 0).then(|| page_beside(key, first)))
    }

    /// Makes the first head.
    fn make_head(&self, key: &str, head: &Head) -> Result<bool, StateError> {
        self.0.set(&page_beside(key, head.number), &head.to_bytes()).map_err(|error| failed(&error))?;
        atomics::increment(&self.0, key, 0).map_err(|error| failed(&error))?;
        let cas = Cas::new(&self.0, key).map_err(|error| failed(&error))?;
        let current = cas.current().map_err(|error| failed(&error))?;
        if current.as_deref().and_then(number_of) != Some(0) {
            return Ok(false);
        }
        swapped(cas, &head.number.to_le_bytes())
    }
}

/// A number that `increment` has made, or a swap of ours.
fn number_of(bytes: &[u8]) -> Option<u64> {
    // In Redis, a new one is a digit.
    if bytes == b"0" { Some(0) } else { bytes.try_into().ok().map(u64::from_le_bytes) }
}

/// Whether a swap has happened.
fn swapped(cas: Cas, value: &[u8]) -> Result<bool, StateError> {
    match swap(cas, value) {
        Ok(()) => Ok(true),
        Err(CasError::CasFailed(_)) => Ok(false),
        Err(CasError::StoreError(error)) => Err(failed(&error)),
    }
}

fn failed(error: &Error) -> StateError {
    StateError::Store(match error {
        Error::NoSuchStore => format!("there is no store {LABEL:?}"),
        Error::AccessDenied => format!("spin.toml does not grant {LABEL:?} in key_value_stores"),
        Error::Other(reason) => reason.clone(),
    })
}
