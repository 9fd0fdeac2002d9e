//! The worker of a partition: takes work, commits now and then, starts over carefully when a stage fails.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Kind, Result},
    segment::{Failure, Mode, Segment, Tapped, Work},
    store::{Commit, InputFile, JournalRecord, Progress, ReadFrom, StateStore},
};

/// When a worker commits: at whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitSettings {
    /// After this long.
    pub every: Duration,
    /// After this many frames.
    pub records_max: usize,
}

/// What gathers in memory before a commit is made whatever the settings say: rows, objects and dead letters.
const OUTCOME_BYTES_MAX: usize = 32 << 20;

/// What goes on to another segment, in messages before they are divided, before a commit is made: times the most
/// partitions that there can be, 256, it is less than the 1,000 messages of a broker's atomic batch.
const OUT_MAX: usize = 3;

/// Watches commits.
pub trait Observer: Send {
    /// Called after each commit, with what it did. It may still be under way.
    fn committed(&mut self, commit: &Committed, tapped: Vec<Tapped>);

    /// Called when a commit is known to be stored, with how long that took.
    fn stored(&mut self, took: Duration) {
        let _ = took;
    }
}

/// What a commit did.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// Additions to the ledger.
    pub ledger: Vec<(crate::store::LedgerKey, crate::store::Counts)>,
    /// Rows, by table.
    pub rows: Vec<(String, u64)>,
    /// Objects that got bytes.
    pub objects: Vec<String>,
    /// Dead letters.
    pub dead_letters: u64,
    /// Events that went on to the next segment.
    pub events_out: u64,
    /// How long the commit took, or to begin it when it is still under way.
    pub took: Duration,
    /// The watermark, ns since the epoch.
    pub watermark: i64,
}

/// How far the source is once a piece of work is done.
#[derive(Clone, Debug)]
pub enum Step {
    /// The journal up to this record.
    Journal(u64),
    /// A file: its number, the byte behind what was read, and whether that is its end.
    File {
        /// Number of the file in the job.
        index: usize,
        /// Bytes, uncompressed.
        offset: u64,
        /// Whether the file is at its end.
        is_done: bool,
    },
    /// Records that are stored with the commit.
    Stored(Vec<JournalRecord>),
    /// A message of the bus.
    Message {
        /// Who gave it out.
        producer: String,
        /// How far it has been read with this message.
        read: ReadFrom,
    },
    /// The end of everything.
    End,
    /// Nothing that a source would have to remember.
    None,
}

/// A segment with its store.
pub struct Worker<S> {
    segment: Segment,
    store: S,
    progress: Progress,
    settings: CommitSettings,
    observer: Box<dyn Observer>,
    uncommitted: Vec<(Work, Step)>,
    /// How far producers on the bus have been read by what was committed.
    committed_read: BTreeMap<String, ReadFrom>,
    records: usize,
    last_commit: Instant,
    /// Set by the first error: what was not committed is not here any more, so that nothing may be committed after it.
    has_failed: bool,
}

impl<S: StateStore> Worker<S> {
    /// A worker that goes on from the store's progress.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn new(segment: Segment, store: S, settings: CommitSettings, observer: Box<dyn Observer>) -> Result<Self> {
        let progress = store.progress()?;
        let committed_read = progress.read.clone();
        Ok(Self {
            committed_read,
            segment,
            store,
            progress,
            settings,
            observer,
            uncommitted: Vec::new(),
            records: 0,
            last_commit: Instant::now(),
            has_failed: false,
        })
    }

    /// The store.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// The store, to ask it what only it knows.
    pub const fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// Whether it is not known yet what became of a commit.
    pub fn is_settling(&self) -> bool {
        self.store.settled().is_some_and(|settled| *settled != self.committed_read)
    }

    /// How far producers on the bus have been read by what is stored, as far as that is known without waiting.
    ///
    /// # Errors
    /// What became of the last commit; as [`Worker::take`].
    pub fn settled(&mut self) -> Result<&BTreeMap<String, ReadFrom>> {
        self.guarded(|worker| worker.settle(false))?;
        Ok(self.store.settled().unwrap_or(&self.committed_read))
    }

    /// The store, without the worker; what is not committed is void.
    pub fn into_store(self) -> S {
        self.store
    }

    /// How far the worker has come, what is not committed yet included.
    pub const fn progress(&self) -> &Progress {
        &self.progress
    }

    /// How far a producer on the bus has been read, what is not committed included.
    pub fn read_of(&self, producer: &str) -> ReadFrom {
        let waiting = self.uncommitted.iter().rev().find_map(|(_, step)| match step {
            Step::Message { producer: of, read } if of == producer => Some(*read),
            _ => None,
        });
        waiting.or_else(|| self.progress.read.get(producer).copied()).unwrap_or_default()
    }

    /// Whether there is work that is not committed.
    pub const fn has_uncommitted(&self) -> bool {
        !self.uncommitted.is_empty()
    }

    /// Whether a stage is being brought to another version, which takes a few commit boundaries.
    pub(crate) fn is_changing(&self) -> bool {
        self.segment.is_changing()
    }

    /// Newest event time and watermark, ns since the epoch.
    pub const fn times(&self) -> (i64, i64) {
        self.segment.times()
    }

    /// Declares the files of a new job.
    pub fn set_inputs(&mut self, inputs: Vec<InputFile>) {
        self.progress.inputs = inputs;
    }

    /// Declares whose journal is read.
    ///
    /// # Errors
    /// `Conflict` when it was another one's until now: what that one still holds would never be read.
    pub fn set_journal(&mut self, identity: String) -> Result<()> {
        if !self.progress.journal.is_empty() && self.progress.journal != identity {
            let message =
                "feed this pipeline from here: it is fed from another data folder, whose journal it would lose";
            return Err(Error::new(Kind::Conflict, message));
        }
        self.progress.journal = identity;
        Ok(())
    }

    /// Notes where the source is; saved with the next commit.
    pub fn set_cursor(&mut self, cursor: String) {
        self.progress.cursor = Some(cursor);
    }

    /// Does a piece of work, and commits when it is time to. A piece with [`Step::None`] is committed with the one behind
    /// it: by itself it would be done again after a crash.
    ///
    /// # Errors
    /// When the store fails, or a stage fails without any record to blame. What was not committed is not lost: a new
    /// worker on the same store reads it again from its source. This one takes nothing any more.
    pub fn take(&mut self, work: Work, step: Step) -> Result<()> {
        self.guarded(|worker| worker.do_piece(work, step))
    }

    /// Commits what is not committed, and waits until that is stored.
    ///
    /// # Errors
    /// As [`Worker::take`].
    pub fn commit(&mut self) -> Result<()> {
        self.guarded(|worker| {
            worker.commit_all()?;
            worker.settle(true)
        })
    }

    fn settle(&mut self, waits: bool) -> Result<()> {
        if let Some(took) = self.store.settle(waits)? {
            self.observer.stored(took);
        }
        Ok(())
    }

    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.has_failed {
            return Err(Error::new(Kind::Internal, "go on with a worker that has failed"));
        }
        let done = work(self);
        self.has_failed = done.is_err();
        done
    }

    fn do_piece(&mut self, mut work: Work, step: Step) -> Result<()> {
        self.records += work.len();
        let done = self.segment.run(&mut work, Mode::Fast, &self.store);
        let is_whole = !matches!(step, Step::None);
        self.uncommitted.push((work, step));
        match done {
            Ok(()) if is_whole && self.is_due() => self.commit_all(),
            Ok(()) => Ok(()),
            Err(Failure::Fault { stage, fault }) => self.start_over(&stage, &fault),
            Err(Failure::Host(error)) => Err(error),
        }
    }

    fn commit_all(&mut self) -> Result<()> {
        if self.uncommitted.is_empty() {
            self.last_commit = Instant::now();
            self.segment.follow(&self.store);
            return Ok(());
        }
        match self.segment.take_outcome() {
            Ok((commit, tapped)) => self.store_outcome(commit, tapped)?,
            Err(Failure::Fault { stage, fault }) => self.start_over(&stage, &fault)?,
            Err(Failure::Host(error)) => return Err(error),
        }
        self.segment.follow(&self.store);
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.records >= self.settings.records_max
            || self.last_commit.elapsed() >= self.settings.every
            || self.segment.outcome_bytes() >= OUTCOME_BYTES_MAX
            || self.segment.out_count() >= OUT_MAX
    }

    /// Goes back to the last commit and does the same work again, piece by piece, each committed by itself.
    fn start_over(&mut self, stage: &str, fault: &crate::runtime::Fault) -> Result<()> {
        tracing::warn!(stage, %fault, pieces = self.uncommitted.len(), "a stage failed; starting over from the commit");
        self.do_again()
    }

    /// Goes back to the last commit, and does what was done since again.
    fn do_again(&mut self) -> Result<()> {
        self.settle(true)?;
        let committed = self.store.progress()?;
        self.segment.rewind(&self.store, &committed)?;
        let mut pieces = std::mem::take(&mut self.uncommitted).into_iter().peekable();
        while let Some((mut work, step)) = pieces.next() {
            self.segment.run(&mut work, Mode::Careful, &self.store)?;
            let is_whole = !matches!(step, Step::None) || pieces.peek().is_none();
            self.uncommitted.push((work, step));
            if !is_whole {
                continue;
            }
            let (commit, tapped) = self.segment.take_outcome()?;
            self.store_outcome(commit, tapped)?;
        }
        Ok(())
    }

    fn store_outcome(&mut self, mut commit: Commit, tapped: Vec<Tapped>) -> Result<()> {
        // One at a time.
        self.settle(true)?;
        let started = Instant::now();
        let mut progress = self.progress.clone();
        for (_, step) in &self.uncommitted {
            match step {
                Step::Journal(sequence) => progress.journal_sequence = *sequence,
                Step::File { index, offset, is_done } => {
                    if let Some(input) = progress.inputs.get_mut(*index) {
                        input.offset = *offset;
                        input.is_done = *is_done;
                    }
                }
                Step::Stored(records) => commit.journal.extend_from_slice(records),
                Step::Message { producer, read } => {
                    progress.read.insert(producer.clone(), *read);
                }
                Step::End => progress.ends += 1,
                Step::None => {}
            }
        }
        progress.watermark = commit.progress.watermark;
        progress.newest = commit.progress.newest;
        commit.progress = progress.clone();
        let mut done = describe(&commit);
        let writes = !(commit.rows.is_empty() && commit.appends.is_empty());
        match self.store.commit(commit) {
            Ok(sequence) => progress.journal_sequence = sequence,
            // What a new version writes does not fit the tables that there are: the version before goes on.
            Err(error)
                if writes
                    && error.kind() == Kind::Invalid
                    && self.segment.step_back(&super::job::error_text(&error)) =>
            {
                return self.do_again();
            }
            Err(error) => return Err(error),
        }
        self.progress = progress;
        self.uncommitted.clear();
        self.segment.committed();
        // A store that gives out counts what it gave.
        self.progress.given = self.store.progress()?.given;
        done.took = started.elapsed();
        self.committed_read.clone_from(&self.progress.read);
        self.records = 0;
        self.last_commit = Instant::now();
        self.observer.committed(&done, tapped);
        if self.store.settled().is_none() {
            self.observer.stored(done.took);
        }
        Ok(())
    }
}

fn describe(commit: &Commit) -> Committed {
    let rows = commit.rows.iter().map(|rows| {
        let count = rows.columns.first().map_or(0, |column| tapeline_invoke::cell_count(&column.cells));
        (rows.table.clone(), count as u64)
    });
    Committed {
        ledger: commit.ledger.iter().map(|(key, counts)| (key.clone(), counts.clone())).collect(),
        rows: rows.collect(),
        objects: commit.appends.iter().map(|append| append.path.clone()).collect(),
        dead_letters: commit.dead_letters.len() as u64,
        events_out: commit.out.iter().map(|message| crate::batch::event_count(&message.batch) as u64).sum(),
        took: Duration::ZERO,
        watermark: commit.progress.watermark,
    }
}
