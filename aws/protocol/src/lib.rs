//! What a host and the process of its store on AWS say to each other.
//!
//! The process is `tapeline-aws store`: it has AWS' clients, which would double what the host is built of. It is the host's
//! child and ends with it. Both speak over its standard input and output in frames ([`frame`]): first the process says
//! [`Hello`], then each [`Asked`] has one [`Answered`]. Requests of a session are done in their order, those of others
//! at the same time.
//!
//! Both are built from one clone; [`VERSION`] tells when they are not.

pub mod frame;
mod limits;

use serde::{Deserialize, Serialize};
use tapeline_invoke::{
    Counts,
    contract::{Append, Entry, Rows},
};

pub use limits::{RAW_OBJECTS, check_append, check_rows};

/// A change of what is said raises it.
pub const VERSION: u32 = 1;

/// What the process says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its [`VERSION`].
    pub version: u32,
    /// Why it is of no use, if it is not.
    pub refused: Option<Refusal>,
}

/// A request of the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// What its answer is known by.
    pub id: u64,
    /// Who asks: each one who opens a partition has a number of its own, under which it goes on.
    pub session: u64,
    /// The partition.
    pub partition: u32,
    /// What is to be done.
    pub request: Request,
}

/// What a host asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// What is committed, to look at it.
    Read,
    /// What is committed, to go on from there: what it gave out is in its place before this is answered.
    Open,
    /// Whether nobody else has committed since this process opened the partition.
    IsCurrent,
    /// A commit behind the last one, and what it gives out put in its place.
    Commit(Box<Commit>),
    /// Nothing more in this session.
    Close,
}

/// All that a batch of work changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// How far the host has read after it, as the host writes it.
    pub progress: Vec<u8>,
    /// Changed entries of each stage; one without a value is deleted.
    pub state: Vec<(String, Vec<Entry>)>,
    /// Rows to put into tables, in order.
    pub rows: Vec<Rows>,
    /// Bytes to put at the end of files, in order.
    pub appends: Vec<Append>,
    /// Additions to the ledger.
    pub ledger: Vec<Counted>,
    /// Records that were put aside: the stage, and a JSON object with `fate`, `reason` and `event` or `record`, and whatever
    /// else is known of it as texts.
    pub aside: Vec<(String, String)>,
}

/// An addition to a line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The stage.
    pub stage: String,
    /// The symbol; empty where it is not known.
    pub symbol: String,
    /// The day of the events in UTC, days since 1970-01-01; none where it is not known.
    pub day: Option<i32>,
    /// What is added.
    pub counts: Counts,
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// That of the request.
    pub id: u64,
    /// The answer.
    pub answer: Answer,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// What is committed.
    Committed {
        /// How far the host has read; none before the first commit.
        progress: Option<Vec<u8>>,
        /// The entries of each stage, by key and part.
        state: Vec<(String, Vec<Entry>)>,
    },
    /// Whether nobody else has committed.
    Current(bool),
    /// It is done.
    Done,
    /// It is not done, or that is not known; the partition is to be opened again.
    Refused(Refusal),
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What can be done about it.
    pub kind: RefusalKind,
    /// What is wrong, as it reads on after "failed to".
    pub message: String,
}

/// What can be done about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalKind {
    /// AWS does not answer, or not in time; trying again may help.
    Unavailable,
    /// What was given is wrong.
    Invalid,
    /// Somebody else was first.
    Conflict,
    /// What is stored is not what was stored.
    Corrupt,
}

impl Refusal {
    /// A refusal.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}
