//! State in a key-value store that has no transactions, changed by commits that happen or do not.
//!
//! Everything that belongs together (the stages of a pipeline, or one stage's session) is a [`Scope`]. A **commit** is one
//! value: its number, the watermark, and every entry that changed. It takes the place of the commit before it by
//! compare-and-swap, which is the one moment at which it happens. After that it is **settled**: its entries are put where
//! they are looked for, each by compare-and-swap and only over an older commit's. Whoever begins settles the last commit
//! first, so that a commit whose process was killed behind it is settled by the next. Who settles late, or twice, changes
//! nothing; who began from a commit that is no longer the last cannot commit, and begins again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tapeline_invoke::contract::Entry;

/// Bytes of the entries that a commit changes. Backends differ in what a value may have; Spin's own takes this.
pub const CHANGES_BYTES_MAX: usize = 16 << 20;
/// How often a value may be changed by others before one gives up on it.
const SWAPS_MAX: usize = 16;

/// A key-value store with compare-and-swap.
pub trait Bucket {
    /// The values of these keys, in their order.
    ///
    /// # Errors
    /// When the store does not answer.
    fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StateError>;

    /// Puts a value in the place of what `expected` is, if that is still there; whether it was.
    ///
    /// # Errors
    /// When the store does not answer.
    fn swap(&self, key: &str, expected: Option<&[u8]>, value: &[u8]) -> Result<bool, StateError>;
}

/// Why there is no state, or no commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Another commit has happened since. It may be tried again from the beginning.
    #[error("another request has changed the state meanwhile")]
    Conflict,
    /// The store failed.
    #[error("the key-value store: {0}")]
    Store(String),
    /// What is stored is none of ours.
    #[error("the key-value store holds something else at {0:?}")]
    Corrupt(String),
    /// A commit would be too large.
    #[error("the request changes {0} bytes of state; {CHANGES_BYTES_MAX} are the most: send it in parts")]
    TooLarge(usize),
}

/// What a stage changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// The stage.
    pub stage: String,
    /// Its entries; one without a value is deleted.
    pub entries: Vec<Entry>,
}

/// All that a request changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// Its number, from 1, without gaps; 0 before the first.
    pub number: u64,
    /// The newest event time; `i64::MIN` before the first.
    pub newest: i64,
    /// The watermark; `i64::MIN` before the first.
    pub watermark: i64,
    /// What the stages changed, each at most once.
    pub changes: Vec<Changes>,
}

impl Default for Commit {
    fn default() -> Self {
        Self { number: 0, newest: i64::MIN, watermark: i64::MIN, changes: Vec::new() }
    }
}

/// The state of one key of a stage.
#[derive(Default, Serialize, Deserialize)]
struct Parts {
    /// The commit that changed it last.
    number: u64,
    /// In the order of parts.
    entries: Vec<Entry>,
}

/// When the keys of a stage must be looked at although no event comes.
#[derive(Default, Serialize, Deserialize)]
struct Timers {
    number: u64,
    by_key: BTreeMap<String, Vec<i64>>,
}

/// State that is committed together.
pub struct Scope<'a, B> {
    bucket: &'a B,
    prefix: String,
}

impl<'a, B: Bucket> Scope<'a, B> {
    /// The state of a pipeline.
    pub fn of_pipeline(bucket: &'a B, name: &str) -> Self {
        Self { bucket, prefix: format!("tapeline/pipeline/{}", encode_name(name)) }
    }

    /// The state of a session with a stage.
    pub fn of_session(bucket: &'a B, stage: &str, session: &str) -> Self {
        Self { bucket, prefix: format!("tapeline/session/{}/{}", encode_name(stage), encode_name(session)) }
    }

    /// The scope of this name.
    pub fn named(bucket: &'a B, name: &str) -> Self {
        Self { bucket, prefix: name.to_owned() }
    }

    /// Its name: what all its keys begin with.
    pub fn name(&self) -> &str {
        &self.prefix
    }

    /// The last commit, settled. All work begins here.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn begin(&self) -> Result<Commit, StateError> {
        let (commit_key, settled_key) = (self.commit_key(), self.settled_key());
        let found = self.bucket.get_many(&[commit_key.clone(), settled_key.clone()])?;
        let [commit, settled] = <[_; 2]>::try_from(found).map_err(|_| short(&commit_key))?;
        let commit: Commit = decode_or_default(&commit_key, commit.as_deref())?;
        let settled: u64 = decode_or_default(&settled_key, settled.as_deref())?;
        if settled < commit.number {
            self.settle(&commit)?;
        }
        Ok(commit)
    }

    /// Lets a commit happen, as the one behind `before`, and settles it.
    ///
    /// # Errors
    /// `Conflict` when `before` is no longer the last. After any other error it may have happened. One that has happened
    /// and could not be settled is settled by whoever begins next.
    pub fn commit(&self, before: &Commit, next: &Commit) -> Result<(), StateError> {
        let bytes: usize = next.changes.iter().flat_map(|changes| &changes.entries).map(size).sum();
        if bytes > CHANGES_BYTES_MAX {
            return Err(StateError::TooLarge(bytes));
        }
        debug_assert_eq!(next.number, before.number + 1, "commits have no gaps");
        let expected = (before.number > 0).then(|| encode(before));
        if !self.bucket.swap(&self.commit_key(), expected.as_deref(), &encode(next))? {
            return Err(StateError::Conflict);
        }
        // It has happened, whatever comes now.
        let _ = self.settle(next);
        Ok(())
    }

    /// The entries of these keys, and of those whose time comes with `mark`, as they were at commit `number`.
    ///
    /// # Errors
    /// `Conflict` when that is no longer the last.
    pub fn load(&self, stage: &str, at: &Commit, keys: Vec<String>, mark: i64) -> Result<Vec<Entry>, StateError> {
        let mut wanted: BTreeSet<String> = keys.into_iter().collect();
        let timers_key = self.timers_key(stage);
        let timers = self.bucket.get_many(std::slice::from_ref(&timers_key))?.pop().flatten();
        let timers: Timers = decode_or_default(&timers_key, timers.as_deref())?;
        if timers.number > at.number {
            return Err(StateError::Conflict);
        }
        let is_due = |times: &Vec<i64>| times.iter().any(|time| *time <= mark);
        wanted.extend(timers.by_key.into_iter().filter(|(_, times)| is_due(times)).map(|(key, _)| key));
        let places: Vec<String> = wanted.iter().map(|key| self.parts_key(stage, key)).collect();
        let mut entries = Vec::new();
        for (place, value) in places.iter().zip(self.bucket.get_many(&places)?) {
            let parts: Parts = decode_or_default(place, value.as_deref())?;
            if parts.number > at.number {
                return Err(StateError::Conflict);
            }
            entries.extend(parts.entries.into_iter().filter(|entry| !is_over(entry, at.watermark)));
        }
        Ok(entries)
    }

    fn settle(&self, commit: &Commit) -> Result<(), StateError> {
        for Changes { stage, entries } in &commit.changes {
            let mut by_key: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
            entries.iter().for_each(|entry| by_key.entry(&entry.key).or_default().push(entry));
            let mut times: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
            for (key, changed) in by_key {
                let look_at = self.settle_key(stage, key, &changed, commit)?;
                times.insert(key, look_at);
            }
            self.settle_timers(stage, &times, commit)?;
        }
        self.update(&self.settled_key(), |settled: u64| (settled < commit.number).then_some(commit.number))
    }

    /// Puts the changes of a key in place. Gives the times at which it must be looked at.
    fn settle_key(&self, stage: &str, key: &str, changed: &[&Entry], commit: &Commit) -> Result<Vec<i64>, StateError> {
        let mut times = Vec::new();
        self.update(&self.parts_key(stage, key), |mut parts: Parts| {
            let is_older = parts.number < commit.number;
            if is_older {
                parts.entries.retain(|entry| changed.iter().all(|new| new.part != entry.part));
                parts
                    .entries
                    .extend(changed.iter().filter(|entry| entry.value.is_some()).map(|entry| (*entry).clone()));
                parts.entries.retain(|entry| !is_over(entry, commit.watermark));
                parts.entries.sort_by_key(|entry| entry.part);
                parts.number = commit.number;
            }
            times = looks(&parts.entries, commit.watermark);
            is_older.then_some(parts)
        })?;
        Ok(times)
    }

    fn settle_timers(&self, stage: &str, times: &BTreeMap<&str, Vec<i64>>, commit: &Commit) -> Result<(), StateError> {
        self.update(&self.timers_key(stage), |mut timers: Timers| {
            if timers.number >= commit.number {
                return None;
            }
            timers.number = commit.number;
            for (key, times) in times {
                timers.by_key.insert((*key).to_owned(), times.clone());
            }
            timers.by_key.retain(|_, times| {
                times.retain(|time| *time > commit.watermark);
                !times.is_empty()
            });
            Some(timers)
        })
    }

    /// Changes a value, again and again until nobody else has meanwhile.
    fn update<T: Serialize + DeserializeOwned + Default>(
        &self,
        key: &str,
        mut change: impl FnMut(T) -> Option<T>,
    ) -> Result<(), StateError> {
        for _ in 0..SWAPS_MAX {
            let found = self.bucket.get_many(&[key.to_owned()])?.pop().flatten();
            let Some(value) = change(decode_or_default(key, found.as_deref())?) else { return Ok(()) };
            if self.bucket.swap(key, found.as_deref(), &encode(&value))? {
                return Ok(());
            }
        }
        Err(StateError::Conflict)
    }

    fn commit_key(&self) -> String {
        format!("{}/commit", self.prefix)
    }

    fn settled_key(&self) -> String {
        format!("{}/settled", self.prefix)
    }

    fn timers_key(&self, stage: &str) -> String {
        format!("{}/{stage}/timers", self.prefix)
    }

    fn parts_key(&self, stage: &str, key: &str) -> String {
        format!("{}/{stage}/state/{key}", self.prefix)
    }
}

/// The times at which a key must be looked at: its timers, and when all of it is over.
fn looks(entries: &[Entry], watermark: i64) -> Vec<i64> {
    let mut times: BTreeSet<i64> = entries.iter().filter_map(|entry| entry.wake_at).collect();
    let ends: Option<Vec<i64>> = entries.iter().map(|entry| entry.expires_at).collect();
    times.extend(ends.into_iter().flatten().max());
    times.into_iter().filter(|time| *time > watermark).collect()
}

/// Whether an entry may be forgotten.
fn is_over(entry: &Entry, watermark: i64) -> bool {
    entry.expires_at.is_some_and(|time| time <= watermark)
}

fn size(entry: &Entry) -> usize {
    entry.key.len() + entry.value.as_ref().map_or(0, Vec::len) + size_of::<Entry>()
}

/// A name that may hold anything, so that it has no slash in it.
fn encode_name(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect()
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    // Numbers, texts and lists of known length can always be written.
    postcard::to_allocvec(value).unwrap_or_default()
}

fn decode_or_default<T: DeserializeOwned + Default>(key: &str, bytes: Option<&[u8]>) -> Result<T, StateError> {
    bytes.map_or_else(|| Ok(T::default()), |bytes| postcard::from_bytes(bytes).map_err(|_| short(key)))
}

fn short(key: &str) -> StateError {
    StateError::Corrupt(key.to_owned())
}

#[cfg(test)]
mod tests;
