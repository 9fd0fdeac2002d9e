//! How far a partition has come: what is committed along with its state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tapeline_invoke::Counts;

/// What is committed along with the state of a partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Number of the last message that was done as a whole. Of the first function it is the number that SQS gave it.
    pub last: u128,
    /// Records, events and marks of the message behind it that are done.
    pub done: u32,
    /// So many of them are done at once; 0 for all. It is halved when a stage fails, until the one is found that is to
    /// blame.
    pub span: u32,
    /// Messages given out to each partition, which is the number of the last one.
    pub given: BTreeMap<u32, u64>,
    /// The newest event time, of the first function; `i64::MIN` before the first.
    pub newest: i64,
    /// The watermark, of the first function; `i64::MIN` before the first.
    pub watermark: i64,
    /// When the last message with an event was sent, ns since the epoch; 0 before the first.
    pub sent: i64,
    /// What runs, by stage.
    pub runs: BTreeMap<String, Runs>,
    /// What the stages have counted, by stage.
    pub counts: BTreeMap<String, Counts>,
}

impl Default for Position {
    fn default() -> Self {
        Self {
            last: 0,
            done: 0,
            span: 0,
            given: BTreeMap::new(),
            newest: i64::MIN,
            watermark: i64::MIN,
            sent: 0,
            runs: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }
}

/// Which component a stage runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// Its digest.
    pub digest: String,
    /// The one before, for as long as it may come back.
    pub before: Option<String>,
    /// Records that this one has yet to take before the one before is let go.
    pub probation: u64,
    /// One that failed and was taken back. It is not tried again unless another one was wanted meanwhile.
    pub refused: Option<String>,
}

/// Records that a new version must take before the one before it is let go, as `swap.probation` in a pipeline file.
pub const PROBATION: u64 = 10_000;

impl Runs {
    /// What runs when this is wanted; `None` if that is so already.
    pub fn towards(&self, wanted: &str) -> Option<Self> {
        if self.digest == wanted {
            // Whoever wants it again may try what was refused again.
            return self.refused.is_some().then(|| Self { refused: None, ..self.clone() });
        }
        if self.refused.as_deref() == Some(wanted) {
            return None;
        }
        let before = Some(self.digest.clone()).filter(|digest| !digest.is_empty());
        let probation = if before.is_some() { PROBATION } else { 0 };
        Some(Self { digest: wanted.to_owned(), before, probation, refused: None })
    }

    /// What runs when this has failed: the one before, if it may come back.
    pub fn rolled_back(&self) -> Option<Self> {
        let before = self.before.clone()?;
        Some(Self { digest: before, before: None, probation: 0, refused: Some(self.digest.clone()) })
    }

    /// Counts records that it has taken.
    pub fn take(&mut self, records: u64) {
        self.probation = self.probation.saturating_sub(records);
        if self.probation == 0 {
            self.before = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_tried_and_taken_back() {
        let first = Runs::default().towards("a").unwrap();
        assert_eq!((first.digest.as_str(), &first.before, first.towards("a")), ("a", &None, None));
        let mut second = first.towards("b").unwrap();
        assert_eq!((second.before.as_deref(), second.probation), (Some("a"), PROBATION));
        let back = second.rolled_back().unwrap();
        assert_eq!((back.digest.as_str(), back.refused.as_deref()), ("a", Some("b")));
        // It is still wanted, and is not tried again; once another one was wanted, it is.
        assert_eq!(back.towards("b"), None);
        assert_eq!(back.towards("a").unwrap().towards("b").unwrap().digest, "b");
        assert_eq!(back.towards("c").unwrap().digest, "c");
        assert_eq!(back.rolled_back(), None);
        second.take(PROBATION);
        assert_eq!(second.rolled_back(), None);
    }

    #[test]
    fn a_position_is_stored_as_it_is() {
        let mut position = Position { last: u128::MAX, done: 3, ..Position::default() };
        position.runs.insert("dedup".to_owned(), Runs::default());
        let bytes = postcard::to_allocvec(&position).unwrap();
        assert_eq!(postcard::from_bytes(&bytes), Ok(position));
    }
}
