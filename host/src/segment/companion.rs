//! A version that runs beside the live one on the same input: a candidate that is compared, or the version before until
//! the new one has proven itself. What it answers reaches nobody, except that the version before stands in where the new
//! one fails.

use std::collections::{BTreeMap, BTreeSet};

use super::{compare::Comparison, plans::Probation, running::Running};
use crate::{contract::Entry, runtime::Fault};

/// What an entry of state is found by.
pub(super) type Key = (String, u64);

/// What tells the entry.
pub(super) fn key_of(entry: &Entry) -> Key {
    (entry.key.clone(), entry.part)
}

/// Entries that may differ from the live version's: more would not fit into a commit.
const TOUCHED_MAX: usize = 500_000;

/// A version beside the live one.
pub(super) struct Companion {
    pub(super) running: Running,
    pub(super) purpose: Purpose,
    /// Its state as of the last commit.
    entries: BTreeMap<Key, Entry>,
    /// What has changed of it since.
    pending: BTreeMap<Key, Entry>,
    /// Where its state and the committed one of the live version may differ.
    touched: BTreeSet<Key>,
    /// What it was for as of the last commit, with what was counted until then.
    counted: Purpose,
}

/// What a companion is for.
#[derive(Clone)]
pub(super) enum Purpose {
    /// To be compared.
    Shadow {
        /// With what came of it.
        comparison: Comparison,
        /// Differences beyond this number throw it out.
        differences_max: u64,
    },
    /// To stand in.
    Before {
        /// What the new version may still do, and must.
        left: Probation,
    },
}

impl Companion {
    /// A companion that is in this state; `touched` is where the live version's may differ from it.
    pub(super) fn new(
        running: Running,
        purpose: Purpose,
        entries: BTreeMap<Key, Entry>,
        touched: impl IntoIterator<Item = Key>,
    ) -> Self {
        let (touched, counted) = (touched.into_iter().collect(), purpose.clone());
        Self { running, purpose, entries, pending: BTreeMap::new(), touched, counted }
    }

    pub(super) fn version(&self) -> u64 {
        self.running.blueprint.version()
    }

    /// Takes note of what has changed in the live version's state, and in its own.
    pub(super) fn collect(&mut self, live: impl IntoIterator<Item = Key>) -> Result<(), Fault> {
        self.touched.extend(live);
        for entry in self.running.instance.checkpoint()? {
            self.touched.insert(key_of(&entry));
            self.pending.insert(key_of(&entry), entry);
        }
        Ok(())
    }

    /// What was collected is committed.
    pub(super) fn committed(&mut self) {
        apply(&mut self.entries, std::mem::take(&mut self.pending));
        self.counted.clone_from(&self.purpose);
    }

    /// Whether so much has changed since it stands beside the live version that it could not take its place any more
    /// within one commit.
    pub(super) fn has_drifted(&self) -> bool {
        self.touched.len() > TOUCHED_MAX
    }

    /// Goes back to the last commit.
    pub(super) fn rewind(&mut self, watermark: i64) -> Result<(), Fault> {
        self.pending.clear();
        // What is done again is counted again.
        self.purpose.clone_from(&self.counted);
        self.revive(watermark)
    }

    /// Makes the instance anew, with all that was collected.
    pub(super) fn revive(&mut self, watermark: i64) -> Result<(), Fault> {
        let mut entries = self.entries.clone();
        apply(&mut entries, self.pending.clone());
        let entries: Vec<Entry> = entries.into_values().collect();
        self.running.revive(&entries, watermark)
    }

    /// The instance, what turns the committed state of the live version into its own as of the last commit, and what has
    /// changed since.
    pub(super) fn into_live(self) -> (Running, BTreeMap<Key, Entry>, BTreeMap<Key, Entry>) {
        let Self { running, mut entries, pending, touched, .. } = self;
        let own = |key: Key| {
            let entry = entries.remove(&key).unwrap_or_else(|| deletion(&key));
            (key, entry)
        };
        (running, touched.into_iter().map(own).collect(), pending)
    }
}

/// Changes entries.
pub(super) fn apply(entries: &mut BTreeMap<Key, Entry>, changes: BTreeMap<Key, Entry>) {
    for (key, entry) in changes {
        if entry.value.is_some() {
            entries.insert(key, entry);
        } else {
            entries.remove(&key);
        }
    }
}

pub(super) fn deletion((key, part): &Key) -> Entry {
    Entry { key: key.clone(), part: *part, version: 0, value: None, wake_at: None, expires_at: None }
}
