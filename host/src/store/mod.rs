//! What a pipeline keeps: raw journal, state, tables, dead letters, ledger; all of it changed by one atomic commit.
//!
//! [`Store`] is the contract; [`SqliteStore`] keeps all in one SQLite file and objects in a folder. `testsuite.rs` is
//! what every backend passes. [`StateStore`] is the part that a segment needs; [`AwsStore`] has no more than that, and the
//! suite of that part is `tests/tests/state_store.rs`. Knows nothing of stages or components.

mod aws;
mod sqlite;
#[cfg(test)]
mod testsuite;

use std::{collections::BTreeMap, path::Path, time::Duration};

pub use aws::{AwsSettings, AwsStore, AwsStores};
pub use sqlite::{SqliteRegistry, SqliteStore, StoredObject};
pub use tapeline_invoke::{Counts, LedgerKey, Value};

use crate::{
    bus::{Message, TraceContext},
    contract::{Append, Entry, Rows},
    error::Result,
};

/// One raw record: what a source sent, before it is parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRecord {
    /// How to read it: `binance`, `finnhub`, `events`.
    pub format: String,
    /// Where it enters the pipeline, as an [`Entrance`](crate::bus::Entrance) is written; absent for the first stage.
    /// Redriven dead letters enter where they died; they are event lines (format `events`).
    pub stage: Option<String>,
    /// When it was received, ns since the epoch.
    pub received: Option<i64>,
    /// The record, byte for byte.
    pub bytes: Vec<u8>,
}

/// A journal record with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// Number in the journal, from 1, without gaps.
    pub sequence: u64,
    /// Whether it came with a commit ([`Commit::journal`]) and was processed before it was stored: a pipeline that goes
    /// on from its progress passes over it, a replay does not.
    pub is_processed: bool,
    /// The record.
    pub record: JournalRecord,
}

/// How far a pipeline has read and what it has seen; part of every commit.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Last journal record that was processed.
    pub journal_sequence: u64,
    /// The files of the present or last job, in order.
    pub inputs: Vec<InputFile>,
    /// The watermark that stages have been told, ns since the epoch; `i64::MIN` before the first.
    pub watermark: i64,
    /// Newest event time seen, ns since the epoch; `i64::MIN` before the first.
    pub newest: i64,
    /// What a source needs to go on where it was (the simulator's position), as the source wrote it.
    pub cursor: Option<String>,
    /// Identity of the store whose journal is read; empty when it is the one that this is kept in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub journal: String,
    /// How far each producer on the bus has been read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub read: BTreeMap<String, ReadFrom>,
    /// Messages given out to each partition of the bus, which is the number of the last one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub given: BTreeMap<u32, u64>,
    /// How often everything has come to an end.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ends: u64,
}

/// How far a producer on the bus has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadFrom {
    /// Number of the last message that was processed.
    pub last: u64,
    /// Its watermark, ns since the epoch; `i64::MIN` before the first.
    pub watermark: i64,
    /// How often it has said that nothing comes any more.
    pub ends: u64,
}

impl Default for ReadFrom {
    fn default() -> Self {
        Self { last: 0, watermark: i64::MIN, ends: 0 }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            journal_sequence: 0,
            inputs: Vec::new(),
            watermark: i64::MIN,
            newest: i64::MIN,
            cursor: None,
            journal: String::new(),
            read: BTreeMap::new(),
            given: BTreeMap::new(),
            ends: 0,
        }
    }
}

/// A file that is its own raw record: kept by digest and offset, not copied.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// SHA-256 of the file as it is stored (compressed), in hex.
    pub digest: String,
    /// Where it was found.
    pub path: String,
    /// How to read it.
    pub format: String,
    /// Bytes, uncompressed, that have been processed.
    pub offset: u64,
    /// Whether it has been read to its end.
    pub is_done: bool,
}

/// A component that ran as a stage, from a place in the raw input on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The stage.
    pub stage: String,
    /// SHA-256 of its component.
    pub digest: String,
    /// Its settings, a JSON object.
    pub settings: String,
    /// Whether it had stood by and went on with its own state, not with that of the version before. `None` where that was
    /// not noted yet.
    pub has_own_state: Option<bool>,
    /// Last journal record that was processed before; see [`Progress`].
    pub journal_sequence: u64,
    /// How far the files of the job had been read.
    pub inputs: Vec<InputFile>,
}

/// What runs as a stage since the commit before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    /// The stage.
    pub stage: String,
    /// SHA-256 of its component.
    pub digest: String,
    /// Its settings, a JSON object.
    pub settings: String,
    /// As in [`Ran`].
    pub has_own_state: bool,
}

/// Why a record is kept aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Aside {
    /// It could not be used.
    Dead,
    /// It came after its time was over.
    Late,
}

/// A record that was kept aside, with all that is needed to say why and to bring it back.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DeadLetter {
    /// Number, from 1; 0 until it is stored.
    pub id: u64,
    /// Why it is here.
    pub aside: Aside,
    /// The stage that refused it.
    pub stage: String,
    /// SHA-256 of the stage's component.
    pub component: String,
    /// The symbol; empty where it is not known.
    pub symbol: String,
    /// Event time, ns since the epoch, where it is known.
    pub time: Option<i64>,
    /// Why, for people.
    pub reason: String,
    /// Where the raw record is: `journal 17`, or `sha256:... at byte 8127`.
    pub origin: String,
    /// How to read `payload`.
    pub format: String,
    /// When the record was received, ns since the epoch.
    pub received: Option<i64>,
    /// The record: the raw frame, or the event as a JSON line.
    #[serde(serialize_with = "as_text")]
    pub payload: Vec<u8>,
    /// The partition of a chain whose worker refused it; absent where there is none, and for the first stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// Whether it has been sent through the pipeline again.
    pub is_redriven: bool,
}

fn as_text<S: serde::Serializer>(bytes: &[u8], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(bytes))
}

/// All that a batch of work changes. It is carried out as a whole or not at all.
#[derive(Debug, Default)]
pub struct Commit {
    /// Raw records of a source that cannot be read again (standard input), already processed in this commit.
    pub journal: Vec<JournalRecord>,
    /// How far the pipeline has read after this commit.
    pub progress: Progress,
    /// Changed state entries of each stage.
    pub state: Vec<(String, Vec<Entry>)>,
    /// Rows to put into tables, in order.
    pub rows: Vec<Rows>,
    /// Bytes to put at the end of objects, in order.
    pub appends: Vec<Append>,
    /// Additions to the ledger.
    pub ledger: BTreeMap<LedgerKey, Counts>,
    /// New dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// What goes on to the next segment.
    pub out: Vec<Message>,
    /// The step of a trace that it goes on from.
    pub trace: Option<TraceContext>,
    /// Stages whose component or settings may be others than in the commit before.
    pub ran: Vec<Runs>,
}

/// Which rows to read.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The table.
    pub table: String,
    /// Only this symbol.
    pub symbol: Option<String>,
    /// Only rows with a time (the table's first column of times) at or after this, ns since the epoch.
    pub from: Option<i64>,
    /// Only rows with a time before this.
    pub to: Option<i64>,
    /// At most so many rows.
    pub limit: Option<u64>,
}

/// What a [`Query`] found, a row at a time, in the order of the primary key.
pub trait RowSink {
    /// Called once, first, with the names of the columns.
    ///
    /// # Errors
    /// What the sink fails with ends the query.
    fn columns(&mut self, names: &[String]) -> Result<()>;

    /// Called for each row.
    ///
    /// # Errors
    /// What the sink fails with ends the query.
    fn row(&mut self, values: &[Value]) -> Result<()>;
}

/// Reads the state of a stage as it was when this was asked for.
pub type Snapshot = Box<dyn FnOnce() -> Result<Vec<Entry>> + Send>;

/// Says why rows and appends of a writer cannot be committed, if so.
pub type CheckWritten = fn(&[Rows], &[Append]) -> Result<(), String>;

/// Where a segment keeps what it needs to go on, and puts what comes of its work, in one step.
pub trait StateStore: Send {
    /// How far the pipeline has read.
    ///
    /// # Errors
    /// When the store cannot be read; as for all calls.
    fn progress(&self) -> Result<Progress>;

    /// The state entries of a stage, by key and part.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn state(&self, stage: &str) -> Result<Vec<Entry>>;

    /// The state of a stage as it is now, to be read on another thread while this store goes on to commit.
    ///
    /// # Errors
    /// When the store cannot be read; reading may fail as well.
    fn snapshot(&self, stage: &str) -> Result<Snapshot> {
        let entries = self.state(stage)?;
        Ok(Box::new(move || Ok(entries)))
    }

    /// What rows and appends of a writer must keep to beyond what every store takes. One that does not is the writer's fault,
    /// found before the commit, so that the record to blame can be put aside.
    fn check_written(&self) -> CheckWritten {
        |_, _| Ok(())
    }

    /// Carries a commit out: flushes appends to objects, then changes all else in one transaction. A crash at any
    /// place leaves either all of it or nothing, objects included (what an interrupted commit appended is cut off when
    /// the store is opened again).
    ///
    /// Gives the journal number that was stored as progress: the commit's own, moved over records directly behind it
    /// that are processed already, those of this commit among them. The caller goes on from there.
    ///
    /// # Errors
    /// `Conflict` when somebody else has opened the store to commit to it since; `Invalid` for rows that do not fit
    /// their table; `Unavailable` when the disk is full. Nothing is changed then.
    ///
    /// Gives the number of the last journal record that is processed now: `commit.progress.journal_sequence`, or the
    /// number of the last of `commit.journal` when there are such records.
    ///
    /// A store behind a network may still be at it when this returns: then [`Self::settle`] says what became of it, and so
    /// does the next commit. Whoever goes back, or tells others that something is done, settles first.
    fn commit(&mut self, commit: Commit) -> Result<u64>;

    /// Finds out what became of the last commit, and waits for that if told to. Says how long it took when it is stored
    /// since the last time.
    ///
    /// # Errors
    /// As [`Self::commit`].
    fn settle(&mut self, waits: bool) -> Result<Option<Duration>> {
        let _ = waits;
        Ok(None)
    }

    /// How far producers on the bus have been read by commits that are known to be stored; `None` when all are that have
    /// returned.
    fn settled(&self) -> Option<&BTreeMap<String, ReadFrom>> {
        None
    }
}

/// Where a pipeline keeps what must not be lost.
///
/// A store belongs to one pipeline. Any number of processes may read it; one at a time may commit: a second writer's
/// [`StateStore::commit`] fails with a conflict and changes nothing.
pub trait Store: StateStore {
    /// Puts raw records at the end of the journal, durably, and gives the number of the last one. May be called by
    /// another handle on the same store while a pipeline commits.
    ///
    /// # Errors
    /// When they could not be stored; none is then.
    fn append_journal(&mut self, records: &[JournalRecord]) -> Result<u64>;

    /// Journal records behind `after`, in order: as many as fit into `records_max` and `bytes_max`, at least one if
    /// there is one.
    ///
    /// # Errors
    /// When the journal cannot be read.
    fn read_journal(&self, after: u64, records_max: usize, bytes_max: usize) -> Result<Vec<JournalEntry>>;

    /// Number of the last journal record; 0 when there is none.
    ///
    /// # Errors
    /// When the journal cannot be read.
    fn journal_end(&self) -> Result<u64>;

    /// Reads rows.
    ///
    /// # Errors
    /// `NotFound` when there is no such table; what the sink fails with.
    fn query(&self, query: &Query, sink: &mut dyn RowSink) -> Result<()>;

    /// Names of the tables.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn tables(&self) -> Result<Vec<String>>;

    /// The whole ledger, in the order of its keys.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn ledger(&self) -> Result<Vec<(LedgerKey, Counts)>>;

    /// Dead letters from number `from` on, at most `limit`, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn dead_letters(&self, from: u64, limit: u64) -> Result<Vec<DeadLetter>>;

    /// The files of which something was ever read, each once, in order, with the number of the last journal record before
    /// each.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn inputs_ever(&self) -> Result<Vec<(InputFile, u64)>>;

    /// Which components ran, and from where on; for each stage in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn ran(&self) -> Result<Vec<Ran>>;

    /// Puts dead letters back into the journal, at the stage that refused them, and marks them; in one transaction.
    /// Those that were redriven before are left out. Gives how many were put back.
    ///
    /// # Errors
    /// `NotFound` when there is no dead letter of a number; nothing is changed then.
    fn redrive(&mut self, ids: &[u64]) -> Result<u64>;
}

/// Opens the store in a data folder, making it if need be.
///
/// # Errors
/// When the folder cannot be written, holds a newer version's store, or what is there is damaged.
pub fn open(folder: &Path) -> Result<SqliteStore> {
    SqliteStore::open(folder)
}
