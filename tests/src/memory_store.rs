//! A store that keeps state in memory and throws rows away: what a chain costs without one.

use std::collections::BTreeMap;

use tapeline::{
    contract::Entry,
    error::Result,
    store::{Commit, Counts, DeadLetter, LedgerKey, Progress, StateStore},
};

/// Keeps progress, state, ledger and dead letters; counts rows and appended bytes.
#[derive(Default)]
pub struct MemoryStore {
    progress: Progress,
    state: BTreeMap<String, BTreeMap<(String, u64), Entry>>,
    /// The ledger.
    pub ledger: BTreeMap<LedgerKey, Counts>,
    /// The dead letters, in order.
    pub dead: Vec<DeadLetter>,
    /// Rows that were written.
    pub rows: u64,
    /// Bytes that were put into objects.
    pub object_bytes: u64,
    /// Everything that was written, kept only when asked for.
    pub written: Option<Vec<Commit>>,
}

impl MemoryStore {
    /// A store that keeps what is written, too.
    pub fn keeping() -> Self {
        Self { written: Some(Vec::new()), ..Self::default() }
    }
}

impl StateStore for MemoryStore {
    fn progress(&self) -> Result<Progress> {
        Ok(self.progress.clone())
    }

    fn state(&self, stage: &str) -> Result<Vec<Entry>> {
        Ok(self.state.get(stage).map(|entries| entries.values().cloned().collect()).unwrap_or_default())
    }

    fn commit(&mut self, mut commit: Commit) -> Result<u64> {
        for (stage, entries) in std::mem::take(&mut commit.state) {
            let known = self.state.entry(stage).or_default();
            for entry in entries {
                let key = (entry.key.clone(), entry.part);
                if entry.value.is_some() {
                    known.insert(key, entry);
                } else {
                    known.remove(&key);
                }
            }
        }
        self.progress = commit.progress.clone();
        for (key, counts) in std::mem::take(&mut commit.ledger) {
            self.ledger.entry(key).or_default().add(&counts);
        }
        self.dead.append(&mut commit.dead_letters);
        let count = |rows: &tapeline::contract::Rows| {
            rows.columns.first().map_or(0, |column| tapeline_invoke::cell_count(&column.cells))
        };
        self.rows += commit.rows.iter().map(count).sum::<usize>() as u64;
        self.object_bytes += commit.appends.iter().map(|append| append.bytes.len() as u64).sum::<u64>();
        if let Some(written) = &mut self.written {
            written.push(commit);
        }
        Ok(self.progress.journal_sequence)
    }
}
