//! What the front of a pipeline and the fronts of its stages tell each other, in postcard, over the application's own
//! HTTP. Both are built from one source and deployed together, so that the bytes have no version.

use serde::{Deserialize, Serialize};
use tapeline_invoke::{Counts, Hop};
use tapeline_state::{Area, Changes};

/// The path at which a stage takes part in a pipeline. No trigger leads to it: only components of the same application
/// reach it, by `http://<stage>.spin.internal`.
pub const PASS_PATH: &str = "/pass";
/// Bytes of an answer: more than the largest body becomes.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// A stage's part of a request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pass {
    /// Whose state it is, as [`tapeline_state::Scope`] says.
    pub scope: String,
    /// The number of the root that was committed last.
    pub root: u64,
    /// The stage's part of it.
    pub area: Area,
    /// What it is given.
    pub work: Work,
}

/// What a stage is given.
#[derive(Debug, Serialize, Deserialize)]
pub enum Work {
    /// Raw records, one a line, for the first stage.
    Records {
        /// How to read them.
        format: String,
        /// When they were received, ns since the epoch.
        received: i64,
        /// The body that they came in.
        body: Vec<u8>,
    },
    /// Events and marks.
    Events(Hop),
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct PassAnswer {
    /// Whether the stage is one that nothing goes on from.
    pub is_writer: bool,
    /// What goes on.
    pub events: Hop,
    /// Rows and appends of a writer, as JSON lines.
    pub rows: Vec<u8>,
    /// A JSON line for each record that is late or dead.
    pub rejects: Vec<u8>,
    /// What became of the records.
    pub counts: Counts,
    /// What it changed of the stage's state. Nothing of it is stored yet.
    pub changes: Changes,
}
