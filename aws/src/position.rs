//! How far a partition has come: what is committed along with its state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is committed along with the state of a partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Which stages share the function, and into how many partitions symbols are divided; empty before the first commit.
    pub layout: String,
    /// Number of the last message of each producer that was done as a whole. What enters the pipeline has no producer, and
    /// the number that SQS gave it.
    pub last: BTreeMap<String, u128>,
    /// The message that is being done in parts.
    pub partial: Option<Partial>,
    /// Commits of work; what it gave out is named by this.
    pub steps: u64,
    /// The last of these commits whose alarms are known to have been told.
    pub told: u64,
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
    /// Records that were put into the dead letters, those that are late not counted.
    pub dead: u64,
}

impl Default for Position {
    fn default() -> Self {
        Self {
            layout: String::new(),
            last: BTreeMap::new(),
            partial: None,
            steps: 0,
            told: 0,
            given: BTreeMap::new(),
            newest: i64::MIN,
            watermark: i64::MIN,
            sent: 0,
            runs: BTreeMap::new(),
            dead: 0,
        }
    }
}

/// A message that is done in parts, because a stage has failed on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// Who gave it out.
    pub producer: String,
    /// Its number.
    pub number: u128,
    /// Records, events and marks of it that are done.
    pub done: u32,
    /// So many of them are done at once; 0 for all. It is halved when a stage fails, until the one is found that is to
    /// blame.
    pub span: u32,
    /// Stages, by their places, that fail on the next one: they are not given it, for these reasons.
    pub aside: BTreeMap<u32, String>,
}

impl Position {
    /// The number of a producer's last message that was done as a whole.
    pub fn last_of(&self, producer: &str) -> u128 {
        self.last.get(producer).copied().unwrap_or_default()
    }

    /// What has been done of a message.
    pub fn partial_of(&self, producer: &str, number: u128) -> Partial {
        let known = self.partial.clone().filter(|partial| partial.producer == producer && partial.number == number);
        known.unwrap_or_else(|| Partial {
            producer: producer.to_owned(),
            number,
            done: 0,
            span: 0,
            aside: BTreeMap::new(),
        })
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
            // Another one is wanted than the one that was refused: that may be tried again.
            return self.refused.is_some().then(|| Self { refused: None, ..self.clone() });
        }
        if self.refused.as_deref() == Some(wanted) {
            return None;
        }
        let before = Some(self.digest.clone()).filter(|digest| !digest.is_empty());
        let probation = if before.is_some() { PROBATION } else { 0 };
        Some(Self { digest: wanted.to_owned(), before, probation, refused: None })
    }

    /// What runs when this has failed and the one before has not.
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
    fn what_is_done_of_a_message_is_of_no_other() {
        let partial = Partial { producer: "p".to_owned(), number: 7, done: 3, span: 1, aside: BTreeMap::new() };
        let position = Position { partial: Some(partial.clone()), ..Position::default() };
        assert_eq!(position.partial_of("p", 7), partial);
        assert_eq!(position.partial_of("p", 8).done, 0);
        assert_eq!(position.partial_of("q", 7).done, 0);
    }

    #[test]
    fn a_position_is_stored_as_it_is() {
        let last = BTreeMap::from([(String::new(), u128::MAX)]);
        let mut position = Position { last, steps: 3, ..Position::default() };
        position.runs.insert("dedup".to_owned(), Runs::default());
        let bytes = postcard::to_allocvec(&position).unwrap();
        assert_eq!(postcard::from_bytes(&bytes), Ok(position));
    }
}
