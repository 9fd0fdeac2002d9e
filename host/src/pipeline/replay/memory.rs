//! A store that keeps progress and state in memory, and nothing of what is written.

use std::collections::BTreeMap;

use crate::{
    contract::Entry,
    error::Result,
    store::{Commit, Progress, StateStore},
};

/// The entries of a stage, by key and part.
type Entries = BTreeMap<(String, u64), Entry>;

/// Keeps what a segment needs to go on, for as long as the process lives.
#[derive(Clone, Default)]
pub(super) struct MemoryState {
    progress: Progress,
    state: BTreeMap<String, Entries>,
    last: Undo,
}

/// What the last commit has replaced.
#[derive(Clone, Default)]
struct Undo {
    progress: Progress,
    /// By stage; `None` for entries that were not there.
    entries: Vec<(String, (String, u64), Option<Entry>)>,
}

impl MemoryState {
    /// Goes back to before the last commit; once.
    pub(super) fn undo(&mut self) {
        let last = std::mem::take(&mut self.last);
        self.progress = last.progress;
        // Backwards: of an entry that was changed twice, the oldest is right.
        for (stage, key, entry) in last.entries.into_iter().rev() {
            let entries = self.state.entry(stage).or_default();
            match entry {
                Some(entry) => drop(entries.insert(key, entry)),
                None => drop(entries.remove(&key)),
            }
        }
    }
}

impl MemoryState {
    /// Gives a stage another state. Behind that, the last commit is not gone back to.
    pub(super) fn put_state(&mut self, stage: &str, entries: Vec<Entry>) {
        let state = self.state.entry(stage.to_owned()).or_default();
        state.clear();
        change(state, entries);
        self.last = Undo { progress: self.progress.clone(), entries: Vec::new() };
    }
}

/// Puts changed entries in place; those without a value are deleted.
pub(super) fn change(entries: &mut Entries, changes: impl IntoIterator<Item = Entry>) {
    for entry in changes {
        let key = (entry.key.clone(), entry.part);
        match entry.value {
            Some(_) => drop(entries.insert(key, entry)),
            None => drop(entries.remove(&key)),
        }
    }
}

impl StateStore for MemoryState {
    fn progress(&self) -> Result<Progress> {
        Ok(self.progress.clone())
    }

    fn state(&self, stage: &str) -> Result<Vec<Entry>> {
        Ok(self.state.get(stage).map(|entries| entries.values().cloned().collect()).unwrap_or_default())
    }

    fn commit(&mut self, commit: Commit) -> Result<u64> {
        let mut replaced = Vec::new();
        for (stage, entries) in commit.state {
            let known = self.state.entry(stage.clone()).or_default();
            for entry in &entries {
                let key = (entry.key.clone(), entry.part);
                let before = known.get(&key).cloned();
                replaced.push((stage.clone(), key, before));
            }
            change(known, entries);
        }
        self.last = Undo { progress: std::mem::replace(&mut self.progress, commit.progress), entries: replaced };
        Ok(self.progress.journal_sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_replaced_and_deleted() {
        let entry = |part, value: Option<&[u8]>| Entry {
            key: "A".to_owned(),
            part,
            version: 1,
            value: value.map(<[u8]>::to_vec),
            wake_at: None,
            expires_at: None,
        };
        let mut store = MemoryState::default();
        let mut commit = |entries| {
            let progress = Progress { newest: 7, ..Progress::default() };
            store.commit(Commit { progress, state: vec![("s".to_owned(), entries)], ..Commit::default() }).unwrap();
            store.state("s").unwrap()
        };
        commit(vec![entry(2, Some(b"x")), entry(1, Some(b"y"))]);
        let left = commit(vec![entry(2, None), entry(1, Some(b"z")), entry(3, None), entry(4, Some(b"n"))]);
        assert_eq!(left, [entry(1, Some(b"z")), entry(4, Some(b"n"))]);
        assert_eq!((store.progress().unwrap().newest, store.state("other").unwrap().len()), (7, 0));
        store.undo();
        assert_eq!(store.state("s").unwrap(), [entry(1, Some(b"y")), entry(2, Some(b"x"))]);
        store.put_state("s", vec![entry(7, Some(b"o"))]);
        store.undo();
        assert_eq!(store.state("s").unwrap(), [entry(7, Some(b"o"))]);
    }
}
