//! Where a function puts what came of its work, other than its state, once that is committed. Everything is written under a
//! name that the commit gave it: whoever writes it again writes the same, and whoever is late harms nobody.

mod dead_letters;
mod ledger;
mod objects;
mod queue;
mod rows;
mod topic;

pub use dead_letters::DeadLetters;
pub use ledger::{Ledger, Line};
pub use objects::Objects;
pub use queue::Queue;
pub use rows::{AT, EXPIRES, ROW, Rows, TABLE_SYMBOL};
pub use topic::Topic;

use std::borrow::Cow;

use aws_sdk_dynamodb::error::DisplayErrorContext;

/// Requests under way at once.
const REQUESTS_MAX: usize = 32;

/// A service that did not take something. It is given to it again.
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
    /// Commits of work of the partition, with this one.
    pub step: u64,
}

/// Letters of a number, so that names are in the order of numbers. SQS numbers with 20 digits.
const DIGITS: usize = 20;

impl Part {
    /// What names of its things begin with.
    fn name(&self) -> String {
        format!("{:03}-{:0DIGITS$}", self.partition, self.step)
    }
}

/// A text as part of a key that has a limit: what is too long is cut, and told apart by its digest.
fn fitted(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return Cow::Borrowed(text);
    }
    let digest: String = tapeline_runtime::digest(text.as_bytes()).chars().take(DIGEST_LETTERS).collect();
    let kept = text.get(..text.floor_char_boundary(bytes_max - DIGEST_LETTERS - 1)).unwrap_or_default();
    Cow::Owned(format!("{kept}~{digest}"))
}

/// Letters of a digest that tell texts apart.
const DIGEST_LETTERS: usize = 32;
