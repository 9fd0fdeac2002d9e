//! Where a function puts what came of its work, other than its state. Everything is written under a name that depends on
//! the work alone, before the commit: whoever does the same work again writes the same, and whoever is late harms nobody.

mod dead_letters;
mod objects;
mod queue;
mod rows;
mod topic;

pub use dead_letters::DeadLetters;
pub use objects::Objects;
pub use queue::Queue;
pub use rows::{AT, EXPIRES, ROW, Rows, TABLE_SYMBOL};
pub use topic::Topic;

use aws_sdk_dynamodb::error::DisplayErrorContext;

/// Requests under way at once.
const REQUESTS_MAX: usize = 32;

/// A service that did not take something. Nothing is committed then; it is done again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{service}: {message}")]
pub struct SinkError {
    service: &'static str,
    message: String,
}

impl SinkError {
    fn new(service: &'static str, error: impl std::error::Error) -> Self {
        Self { service, message: DisplayErrorContext(error).to_string() }
    }
}

/// Which part of the work it is: of what order, and by what name.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The partition.
    pub partition: u32,
    /// Number of the message.
    pub number: u128,
    /// Its first record, event or mark.
    pub from: u32,
}

/// Letters of a number, so that names are in the order of numbers. SQS numbers with 20 digits.
const DIGITS: usize = 20;

impl Part {
    /// What names of its things begin with.
    fn name(&self) -> String {
        format!("{:03}/{:0DIGITS$}/{:06}", self.partition, self.number, self.from)
    }

    /// Greater than that of all parts of its partition that were before it.
    fn order(&self) -> String {
        // Messages have fewer records than that, since each has a byte.
        format!("{}{:06}", self.number, self.from)
    }
}
