//! Spin's key-value store, in memory, with a way to make writes fail.
//!
//! It outlives the server: a restart is another server on the same store. What a test does with it directly is neither
//! counted nor made to fail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The label that every Spin application has, without a file of settings.
pub const DEFAULT_LABEL: &str = "default";

/// A handle to the stores. Clones are the same stores.
#[derive(Clone)]
pub struct KeyValue(Arc<Mutex<Stores>>);

struct Stores {
    labels: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    reads: u64,
    writes: u64,
    fault: Option<Fault>,
}

struct Fault {
    writes_left: u64,
    failure: Failure,
}

/// What becomes of a component whose write fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It gets an error, as from a disk that is full.
    Error,
    /// It ends there, as from a kill: the call traps, and the instance is thrown away.
    Kill,
}

/// Why an operation was not carried out.
pub(crate) enum Refusal {
    Error(String),
    Kill,
}

/// How a compare-and-swap went.
pub(crate) enum Swap {
    Done,
    /// Somebody else has written.
    Lost,
}

impl Default for KeyValue {
    fn default() -> Self {
        Self::with_labels([DEFAULT_LABEL])
    }
}

impl KeyValue {
    /// Makes an empty store for the label `default`, which is what Spin has without settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an empty store for each label: what a file of settings for the runtime does in Spin.
    pub fn with_labels<'a>(labels: impl IntoIterator<Item = &'a str>) -> Self {
        let labels = labels.into_iter().map(|label| (label.to_owned(), BTreeMap::new())).collect();
        Self(Arc::new(Mutex::new(Stores { labels, reads: 0, writes: 0, fault: None })))
    }

    /// Lets so many more writes through, and makes all after them fail. A batch is as many writes as it has keys, and may
    /// be cut in the middle: the interface promises no more.
    pub fn fail_after(&self, writes: u64, failure: Failure) {
        self.lock().fault = Some(Fault { writes_left: writes, failure });
    }

    /// Lets all writes through again.
    pub fn heal(&self) {
        self.lock().fault = None;
    }

    /// How many values components have asked for, found or not.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.lock().reads
    }

    /// How many values components have written or deleted. A swap that was lost is none.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// Looks at a value.
    #[must_use]
    pub fn peek(&self, label: &str, key: &str) -> Option<Vec<u8>> {
        self.lock().labels.get(label)?.get(key).cloned()
    }

    /// Puts a value in, making the label if there is none yet.
    pub fn put(&self, label: &str, key: &str, value: &[u8]) {
        self.lock().labels.entry(label.to_owned()).or_default().insert(key.to_owned(), value.to_vec());
    }

    /// All that is stored under a label, in order of the keys.
    #[must_use]
    pub fn entries(&self, label: &str) -> Vec<(String, Vec<u8>)> {
        let stores = self.lock();
        let entries = stores.labels.get(label).into_iter().flatten();
        entries.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Names the labels there are.
    pub(crate) fn labels(&self) -> Vec<String> {
        self.lock().labels.keys().cloned().collect()
    }

    pub(crate) fn get(&self, label: &str, key: &str) -> Option<Vec<u8>> {
        let mut stores = self.lock();
        stores.reads += 1;
        stores.labels.get(label)?.get(key).cloned()
    }

    pub(crate) fn keys(&self, label: &str) -> Vec<String> {
        self.entries(label).into_iter().map(|(key, _)| key).collect()
    }

    pub(crate) fn set(&self, label: &str, key: String, value: Vec<u8>) -> Result<(), Refusal> {
        self.lock().write(label, |entries| drop(entries.insert(key, value)))
    }

    pub(crate) fn delete(&self, label: &str, key: &str) -> Result<(), Refusal> {
        self.lock().write(label, |entries| drop(entries.remove(key)))
    }

    /// Adds to a number of 8 bytes, the lowest first; an absent one is 0.
    pub(crate) fn increment(&self, label: &str, key: String, delta: i64) -> Result<i64, Refusal> {
        let mut stores = self.lock();
        stores.reads += 1;
        let number = match stores.labels.get(label).and_then(|entries| entries.get(&key)) {
            Some(bytes) => {
                let bytes = bytes.as_slice().try_into();
                let bytes =
                    bytes.map_err(|_| Refusal::Error(format!("the value of `{key}` is not a number of 8 bytes")));
                i64::from_le_bytes(bytes?)
            }
            None => 0,
        };
        let sum = number.checked_add(delta);
        let sum = sum.ok_or_else(|| Refusal::Error(format!("`{key}` does not fit into 64 bits any more")))?;
        stores.write(label, |entries| drop(entries.insert(key, sum.to_le_bytes().to_vec())))?;
        Ok(sum)
    }

    /// Writes if the stored value is the expected one. Where none is expected it writes over whatever is there: Spin's own
    /// back end takes such a swap for an upsert (`spin-key-value-spin`, `store.rs`).
    pub(crate) fn swap(
        &self,
        label: &str,
        key: &str,
        expected: Option<&[u8]>,
        value: Vec<u8>,
    ) -> Result<Swap, Refusal> {
        let mut stores = self.lock();
        let stored = stores.labels.get(label).and_then(|entries| entries.get(key));
        if expected.is_some() && stored.map(Vec::as_slice) != expected {
            return Ok(Swap::Lost);
        }
        stores.write(label, |entries| drop(entries.insert(key.to_owned(), value)))?;
        Ok(Swap::Done)
    }

    fn lock(&self) -> MutexGuard<'_, Stores> {
        // Nothing panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stores {
    fn write(&mut self, label: &str, write: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Result<(), Refusal> {
        match &mut self.fault {
            Some(Fault { writes_left: 0, failure: Failure::Error }) => {
                return Err(Refusal::Error("the test lets no more writes through".to_owned()));
            }
            Some(Fault { writes_left: 0, failure: Failure::Kill }) => return Err(Refusal::Kill),
            Some(fault) => fault.writes_left -= 1,
            None => {}
        }
        self.writes += 1;
        write(self.labels.entry(label.to_owned()).or_default());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swap(store: &KeyValue, expected: Option<&[u8]>, value: &[u8]) -> bool {
        matches!(store.swap(DEFAULT_LABEL, "k", expected, value.to_vec()), Ok(Swap::Done))
    }

    #[test]
    fn a_swap_is_lost_unless_the_value_is_the_expected_one() {
        let store = KeyValue::new();
        assert!(!swap(&store, Some(b"a"), b"b"));
        assert!(swap(&store, None, b"0"));
        assert!(swap(&store, None, b"a"), "as in Spin, which guards only what is there");
        assert!(!swap(&store, Some(b"b"), b"c"));
        assert!(swap(&store, Some(b"a"), b"b"));
        assert_eq!((store.peek(DEFAULT_LABEL, "k"), store.writes()), (Some(b"b".to_vec()), 3));
    }

    #[test]
    fn writes_fail_after_those_that_are_let_through() {
        let store = KeyValue::new();
        store.fail_after(1, Failure::Kill);
        assert!(store.set(DEFAULT_LABEL, "a".to_owned(), vec![]).is_ok());
        assert!(matches!(store.set(DEFAULT_LABEL, "b".to_owned(), vec![]), Err(Refusal::Kill)));
        assert!(matches!(store.delete(DEFAULT_LABEL, "a"), Err(Refusal::Kill)));
        store.fail_after(0, Failure::Error);
        assert!(matches!(store.increment(DEFAULT_LABEL, "n".to_owned(), 1), Err(Refusal::Error(_))));
        assert!(!swap(&store, None, b"a"));
        store.heal();
        assert!(store.clone().delete(DEFAULT_LABEL, "a").is_ok());
        assert_eq!(store.entries(DEFAULT_LABEL), []);
    }

    #[test]
    fn a_number_is_added_to() {
        let store = KeyValue::new();
        assert!(matches!(store.increment(DEFAULT_LABEL, "n".to_owned(), 3), Ok(3)));
        assert!(matches!(store.increment(DEFAULT_LABEL, "n".to_owned(), -5), Ok(-2)));
        store.put(DEFAULT_LABEL, "n", b"no number");
        assert!(matches!(store.increment(DEFAULT_LABEL, "n".to_owned(), 1), Err(Refusal::Error(_))));
    }
}
