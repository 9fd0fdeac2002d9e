//! What a segment gives out with a commit: events in columns, and what it and those before it have counted and kept aside.

use serde::{Deserialize, Serialize};
use tapeline_invoke::{Hop, partition_of};

use crate::{
    batch::{self, Element},
    bus::TraceContext,
    contract::Batch,
    error::{Error, Kind, Result},
    names::Names,
    store::{Counts, DeadLetter, LedgerKey},
};

/// What travels from one segment to the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Who gave it out: a partition's number, or `source`.
    pub producer: String,
    /// Its number among the producer's messages to this partition, from 1, without gaps.
    pub number: u64,
    /// Where the events enter, when it is not the next stage: those before it hand them on as they are.
    pub enters: Option<Entrance>,
    /// The texts of the names in `batch`, whose numbers are indices into them.
    pub names: Vec<String>,
    /// Events and marks.
    pub batch: Batch,
    /// Additions to the ledger.
    pub ledger: Vec<(LedgerKey, Counts)>,
    /// New dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// The commit that gave it out, as a step of a trace. Travels beside the bytes, in a header.
    pub trace: Option<TraceContext>,
}

/// Where events enter a pipeline that do not come from its source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entrance {
    /// The stage.
    pub stage: String,
    /// The partition whose state knows them; by their symbol if it is not said.
    pub partition: Option<u32>,
}

impl Entrance {
    /// Reads `alarm` or `alarm.3`, as [`std::fmt::Display`] writes it.
    pub fn parse(text: &str) -> Self {
        let parts = text.split_once('.').and_then(|(stage, partition)| Some((stage, partition.parse().ok()?)));
        match parts {
            Some((stage, partition)) => Self { stage: stage.to_owned(), partition: Some(partition) },
            None => Self { stage: text.to_owned(), partition: None },
        }
    }
}

impl std::fmt::Display for Entrance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.partition {
            None => f.write_str(&self.stage),
            Some(partition) => write!(f, "{}.{partition}", self.stage),
        }
    }
}

impl Message {
    /// A message of events whose names are a worker's.
    pub fn pack(batch: Batch, names: &Names) -> Self {
        let Hop { names, batch } = Hop::pack(batch, names);
        Self { names, batch, ..Self::default() }
    }

    /// The events, with a worker's names.
    ///
    /// # Errors
    /// `Corrupt` when a number is that of no name.
    pub fn unpack(&self, names: &mut Names) -> Result<Batch> {
        let hop = Hop { names: self.names.clone(), batch: self.batch.clone() };
        hop.unpack(names).map_err(|breach| Error::caused(Kind::Corrupt, "read the names of a message", breach))
    }

    /// Number of events and marks, at least one: what is read counts as work.
    pub fn len(&self) -> usize {
        (batch::event_count(&self.batch) + self.batch.marks.len()).max(1)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.batch.groups.is_empty()
            && self.batch.marks.is_empty()
            && self.ledger.is_empty()
            && self.dead_letters.is_empty()
    }

    /// The same events in partitions: those of a symbol in one of them, or all where they enter, marks in all. Counts and
    /// dead letters go with the first.
    pub fn split(self, partitions: u32) -> Vec<Self> {
        if partitions <= 1 {
            return vec![self];
        }
        let of_name: Vec<u32> = self.names.iter().map(|name| partition_of(name, partitions)).collect();
        let entered = self.enters.as_ref().and_then(|enters| enters.partition).filter(|at| *at < partitions);
        let of_event: Vec<u32> = batch::elements(&self.batch)
            .filter_map(|element| match element {
                Element::Event { group, at } => Some(self.batch.groups[group].symbol[at]),
                Element::Mark(_) => None,
            })
            .map(|symbol| entered.or_else(|| of_name.get(symbol as usize).copied()).unwrap_or(0))
            .collect();
        let part = |partition: u32| Self {
            enters: self.enters.clone(),
            names: self.names.clone(),
            batch: batch::retain(self.batch.clone(), |position| of_event.get(position) == Some(&partition)),
            ..Self::default()
        };
        let mut parts: Vec<Self> = (0..partitions).map(part).collect();
        if let Some(first) = parts.first_mut() {
            (first.ledger, first.dead_letters) = (self.ledger, self.dead_letters);
        }
        parts
    }

    /// Divides it, because it is too large. What cannot be divided gets smaller: a dead letter keeps the beginning of its
    /// payload, and its reason says so. `None` when nothing can be left out of it.
    pub(super) fn halve(mut self, bytes_max: usize) -> Option<(Self, Option<Self>)> {
        let elements = batch::event_count(&self.batch) + self.batch.marks.len();
        let mut second = Self { enters: self.enters.clone(), ..Self::default() };
        if self.dead_letters.len() > 1 {
            second.dead_letters = self.dead_letters.split_off(self.dead_letters.len() / 2);
        } else if self.ledger.len() > 1 {
            second.ledger = self.ledger.split_off(self.ledger.len() / 2);
        } else if elements > 1 {
            second.names.clone_from(&self.names);
            second.batch = batch::slice(&self.batch, elements / 2..elements);
            self.batch = batch::slice(&self.batch, 0..elements / 2);
        } else {
            let letter = self.dead_letters.first_mut().filter(|letter| letter.payload.len() > bytes_max / 2)?;
            let bytes = letter.payload.len();
            letter.payload.truncate(bytes_max / 2);
            letter.reason = format!("{}; the beginning of its {bytes} bytes is kept", letter.reason);
            return Some((self, None));
        }
        Some((self, Some(second)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tapeline_events::Day;

    use super::*;
    use crate::store::Aside;

    const LINES: &str = r#"{"kind":"trade","symbol":"A","source":"s","time":"1970-01-01T00:00:00Z","id":1,"price":1}
{"kind":"watermark","time":"1970-01-01T00:00:01Z"}
{"kind":"trade","symbol":"B","source":"s","time":"1970-01-01T00:00:02Z","id":2,"price":2,"currency":"USD"}
{"kind":"trade","symbol":"C","source":"s","time":"1970-01-01T00:00:02Z","id":3,"price":2,"currency":"USD"}"#;

    pub(in crate::bus) fn lines(batch: &Batch, names: &Names) -> Vec<String> {
        batch::elements(batch)
            .map(|element| match element {
                Element::Event { group, at } => batch::to_line(&batch.groups[group], at, names),
                Element::Mark(at) => format!("mark {}", batch.marks[at]),
            })
            .collect()
    }

    pub(in crate::bus) fn message() -> (Message, Vec<String>) {
        let mut names = Names::default();
        names.intern("not in the batch");
        let batch = batch::from_lines(LINES.lines().map(str::as_bytes), None, &mut names).unwrap();
        let expected = lines(&batch, &names);
        let counts = Counts { entered: 3, dropped: [("rule".to_owned(), 2)].into(), ..Counts::default() };
        let key = LedgerKey { stage_index: 0, stage: "fetch".into(), symbol: "A".into(), day: Some(Day(3)) };
        let letter = DeadLetter {
            id: 0,
            aside: Aside::Late,
            stage: "dedup".into(),
            component: "digest".into(),
            symbol: "A".into(),
            time: Some(7),
            reason: "why".into(),
            origin: "where".into(),
            format: "events".into(),
            received: None,
            payload: vec![0, 255],
            partition: Some(2),
            is_redriven: false,
        };
        let message = Message::pack(batch, &names);
        let (ledger, dead_letters) = (vec![(key, counts)], vec![letter]);
        (Message { enters: Some(Entrance::parse("alarm")), ledger, dead_letters, ..message }, expected)
    }

    #[test]
    fn events_enter_where_they_are_known() {
        for text in ["alarm", "alarm.3", "alarm.x"] {
            assert_eq!(Entrance::parse(text).to_string(), text);
        }
        let (message, _) = message();
        for at in 0..3 {
            let enters = Some(Entrance { stage: "alarm".to_owned(), partition: Some(at) });
            let parts = Message { enters, ..message.clone() }.split(3);
            let counts: Vec<usize> = parts.iter().map(|part| batch::event_count(&part.batch)).collect();
            let expected: Vec<usize> = (0..3).map(|part| if part == at { 3 } else { 0 }).collect();
            assert_eq!(counts, expected);
        }
    }

    #[test]
    fn partitions_share_the_marks_and_nothing_else() {
        let (message, expected) = message();
        let parts = message.clone().split(3);
        assert_eq!(parts.len(), 3);
        assert!(parts.iter().all(|part| part.enters == Some(Entrance::parse("alarm"))));
        let read = |part: &Message| {
            let mut names = Names::default();
            let batch = part.unpack(&mut names).unwrap();
            lines(&batch, &names)
        };
        let all: Vec<Vec<String>> = parts.iter().map(read).collect();
        let mark = expected.iter().find(|line| line.starts_with("mark")).unwrap();
        assert!(all.iter().all(|part| part.contains(mark)));
        let mut events: Vec<&String> = all.iter().flatten().filter(|line| *line != mark).collect();
        let mut wanted: Vec<&String> = expected.iter().filter(|line| *line != mark).collect();
        events.sort();
        wanted.sort();
        assert_eq!(events, wanted);
        assert_eq!((parts[0].ledger.len(), parts[1].ledger.len() + parts[2].ledger.len()), (1, 0));
        assert_eq!(partition_of("BTCUSDT", 8), 5, "part of what is stored: must never change");
    }
}
