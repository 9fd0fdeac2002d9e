//! The conformance suite: the same calls of stages give the same bytes in every runtime.
//!
//! A folder of `tests/conformance` is a case: a stage, its settings, and calls with what they must answer. [`check`] asks
//! them of a [`Runtime`], which is all that a runtime has to provide. A case is written by hand and compared with the
//! stage's README: what a program answers is no reason to expect it.

mod base;
mod case;
mod check;

use std::fmt;

use anyhow::Result;
use serde::Deserialize;

pub use self::{
    base::Base,
    case::{Call, Case, Expected, pipeline_settings},
    check::check,
};

/// What an answer with events is.
pub const NDJSON: &str = "application/x-ndjson";
/// What an answer is that says what was wrong.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Something that stages can be called in.
pub trait Runtime: Send + Sync {
    /// What it is called in the names of tests.
    fn name(&self) -> &str;

    /// Why it cannot run a case; `None` when it can.
    fn leaves_out(&self, case: &Case) -> Option<&'static str>;

    /// Calls the stage of a case, under the case's settings. Calls of one case come one after the other, in their order;
    /// those of different cases come at any time, from any thread.
    ///
    /// # Errors
    /// When there is no answer. One that says what was wrong is an answer.
    fn call(&self, case: &Case, call: &Call) -> Result<Answer>;
}

/// What a runtime answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As in HTTP.
    pub status: u16,
    /// Without parameters.
    pub content_type: String,
    /// What became of the events; absent where the answer does not say.
    pub counts: Option<Counts>,
    /// JSON lines, or a problem document.
    pub body: Vec<u8>,
}

/// What became of the events of a call: the `tapeline-...` headers of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Counts {
    /// Events, or records of frames, that came in.
    #[serde(rename = "in")]
    pub entered: u64,
    /// Those that went on.
    pub out: u64,
    /// Those that had come before.
    pub duplicate: u64,
    /// Those whose time was over.
    pub late: u64,
    /// Those that a rule dropped.
    pub dropped: u64,
    /// Those that could not be used.
    pub dead: u64,
}

impl Counts {
    /// Whether each event ended in exactly one place.
    pub const fn balances(&self) -> bool {
        self.entered == self.out + self.duplicate + self.late + self.dropped + self.dead
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entered, out, duplicate, late, dropped, dead } = self;
        write!(f, "in {entered}, out {out}, duplicate {duplicate}, late {late}, dropped {dropped}, dead {dead}")
    }
}
