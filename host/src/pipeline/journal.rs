//! From journal records to work.

use super::{Worker, worker::Step};
use crate::{
    bus::Entrance,
    contract::Frames,
    error::Result,
    segment::{Origin, Work},
    store::{JournalEntry, SqliteStore, StateStore, Store as _},
};

/// Format of the host's own records that move the watermark; the bytes are ns since the epoch, as text.
pub(super) const WATERMARK_FORMAT: &str = "tapeline-watermark";
/// Format of the host's own records that say where a source is.
pub(super) const CURSOR_FORMAT: &str = "tapeline-cursor";

/// Records that are read at once.
pub(super) const RECORDS_MAX: usize = 4_096;
/// Bytes that are read at once.
pub(super) const BYTES_MAX: usize = 1 << 20;

/// Reads the journal in order, ahead of what is committed.
pub(super) struct JournalReader {
    journal: SqliteStore,
    read: u64,
}

impl JournalReader {
    /// A reader behind this record.
    pub(super) const fn new(journal: SqliteStore, after: u64) -> Self {
        Self { journal, read: after }
    }

    /// Gives all records that there are to the worker.
    pub(super) fn read_all<S: StateStore>(&mut self, worker: &mut Worker<S>) -> Result<()> {
        while self.step(worker)? {}
        Ok(())
    }

    /// Gives the next records to the worker. Whether there were any.
    pub(super) fn step<S: StateStore>(&mut self, worker: &mut Worker<S>) -> Result<bool> {
        let entries = self.journal.read_journal(self.read, RECORDS_MAX, BYTES_MAX)?;
        let mut rest = entries.as_slice();
        while let Some(first) = rest.first() {
            let alike = |entry: &&JournalEntry| is_alike(entry, first);
            // The first is always part of its run, also when nothing may be called together with it.
            let (run, behind) = rest.split_at(1 + rest.iter().skip(1).take_while(alike).count());
            let last = run.last().map_or(self.read, |entry| entry.sequence);
            // Noted before the step: a cursor ahead of the committed journal is read again, one behind it is lost.
            if first.record.format == CURSOR_FORMAT
                && let Some(entry) = run.last()
            {
                worker.set_cursor(String::from_utf8_lossy(&entry.record.bytes).into_owned());
            }
            worker.take(work_of(run), Step::Journal(last))?;
            self.read = last;
            rest = behind;
        }
        Ok(!entries.is_empty())
    }
}

/// Whether two records can be given to the first stage in one call.
pub(super) fn is_alike(a: &JournalEntry, b: &JournalEntry) -> bool {
    let (record, other) = (&a.record, &b.record);
    a.is_processed == b.is_processed
        && record.format == other.format
        && record.stage == other.stage
        && (record.format == CURSOR_FORMAT || !record.format.starts_with("tapeline-"))
}

fn work_of(run: &[JournalEntry]) -> Work {
    // Records of standard input were processed in the commit that stored them; only the position moves over them.
    if run.iter().any(|entry| entry.is_processed) {
        return frames_of(&[], origin_of(run));
    }
    raw_work(run)
}

fn origin_of(run: &[JournalEntry]) -> Origin {
    Origin { source: "journal".to_owned(), positions: run.iter().map(|entry| entry.sequence).collect() }
}

/// What records that are alike ask for, whether they have been processed or not.
pub(super) fn raw_work(run: &[JournalEntry]) -> Work {
    let origin = origin_of(run);
    let Some(first) = run.first().map(|entry| &entry.record) else { return frames_of(run, origin) };
    match (&first.stage, first.format.as_str()) {
        (_, WATERMARK_FORMAT) => {
            let text = String::from_utf8_lossy(&first.bytes);
            text.parse().map_or_else(|_| frames_of(&[], origin), Work::Mark)
        }
        (_, CURSOR_FORMAT) => frames_of(&[], origin),
        (Some(stage), _) => {
            let lines: Vec<&[u8]> = run.iter().map(|entry| entry.record.bytes.as_slice()).collect();
            let received = first.received;
            Work::Lines { enters: Entrance::parse(stage), bytes: lines.join(&b'\n'), received, origin }
        }
        (None, _) => frames_of(run, origin),
    }
}

fn frames_of(run: &[JournalEntry], origin: Origin) -> Work {
    let mut bytes = Vec::new();
    let mut ends = Vec::with_capacity(run.len());
    for entry in run {
        bytes.extend_from_slice(&entry.record.bytes);
        ends.push(bytes.len() as u32);
    }
    let received = run.iter().map(|entry| entry.record.received.unwrap_or(i64::MIN)).collect();
    let format = run.first().map(|entry| entry.record.format.clone()).unwrap_or_default();
    Work::Frames { frames: Frames { names: Vec::new(), format, received, ends, bytes }, origin }
}
