//! What a segment gives out with a commit: events in columns, and what it and those before it have counted and kept aside.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use tapeline_events::{Day, Name};

use crate::{
    batch::{self, Element},
    bus::TraceContext,
    contract::Batch,
    error::{Error, Kind, Result},
    names::Names,
    store::{Aside, Counts, DeadLetter, LedgerKey},
};

/// First byte of an encoded message. A change of what follows raises it.
const VERSION: u8 = 2;

/// What travels from one segment to the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Who gave it out: a partition's number, or `source`.
    pub producer: String,
    /// Its number among the producer's messages to this partition, from 1, without gaps.
    pub number: u64,
    /// The stage that the events are for, when it is not the next one: those before it hand them on as they are.
    pub enters: Option<String>,
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

/// Bytes that are no message of this version.
#[derive(Debug, thiserror::Error)]
#[error("not a message of version {VERSION}: {0}")]
pub struct NotAMessage(String);

impl Default for Batch {
    fn default() -> Self {
        batch::empty()
    }
}

impl Message {
    /// A message of events whose names are a worker's.
    pub fn pack(mut batch: Batch, names: &Names) -> Self {
        let mut texts = Vec::new();
        let mut numbers = FxHashMap::default();
        let renumbered = batch::visit_names::<std::convert::Infallible>(&mut batch, |name| {
            *name = *numbers.entry(*name).or_insert_with(|| {
                texts.push(names.text(Name(*name)).to_owned());
                texts.len() as u32 - 1
            });
            Ok(())
        });
        let Ok(()) = renumbered;
        Self { names: texts, batch, ..Self::default() }
    }

    /// The events, with a worker's names.
    ///
    /// # Errors
    /// `Corrupt` when a number is that of no name.
    pub fn unpack(&self, names: &mut Names) -> Result<Batch> {
        let numbers: Vec<u32> = self.names.iter().map(|text| names.intern(text).0).collect();
        let mut batch = self.batch.clone();
        batch::visit_names(&mut batch, |name| {
            let known = numbers.get(*name as usize).copied();
            *name = known.ok_or_else(|| Error::new(Kind::Corrupt, format!("name number {name} of a message")))?;
            Ok::<_, Error>(())
        })?;
        Ok(batch)
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

    /// The same events in partitions: those of a symbol in one of them, marks in all. Counts and dead letters go with
    /// the first.
    pub fn split(self, partitions: u32) -> Vec<Self> {
        if partitions <= 1 {
            return vec![self];
        }
        let of_name: Vec<u32> = self.names.iter().map(|name| partition_of(name, partitions)).collect();
        let of_event: Vec<u32> = batch::elements(&self.batch)
            .filter_map(|element| match element {
                Element::Event { group, at } => Some(self.batch.groups[group].symbol[at]),
                Element::Mark(_) => None,
            })
            .map(|symbol| of_name.get(symbol as usize).copied().unwrap_or(0))
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

    /// The same in messages that each take at most so many bytes. A single event stays whole, which is small; a dead
    /// letter that is too large keeps the beginning of its payload, and its reason says so.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn cut(mut self, bytes_max: usize) -> Result<Vec<Self>> {
        if self.encode()?.len() <= bytes_max {
            return Ok(vec![self]);
        }
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
            let Some(letter) = self.dead_letters.first_mut().filter(|letter| letter.payload.len() > bytes_max / 2)
            else {
                return Ok(vec![self]);
            };
            let bytes = letter.payload.len();
            letter.payload.truncate(bytes_max / 2);
            letter.reason = format!("{}; the beginning of its {bytes} bytes is kept", letter.reason);
            return Ok(vec![self]);
        }
        let mut pieces = self.cut(bytes_max)?;
        pieces.extend(second.cut(bytes_max)?);
        Ok(pieces)
    }

    /// The message as bytes: a version, then postcard (<https://postcard.jamesmunns.com/wire-format>).
    ///
    /// # Errors
    /// `Internal`; memory does not run out quietly.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let wire = Wire {
            producer: self.producer.as_str().into(),
            number: self.number,
            enters: self.enters.as_deref().map(Into::into),
            names: self.names.as_slice().into(),
            batch: std::borrow::Cow::Borrowed(&self.batch),
            ledger: self.ledger.iter().map(WireCounts::of).collect(),
            dead_letters: self.dead_letters.iter().map(WireDeadLetter::of).collect(),
        };
        postcard::to_extend(&wire, vec![VERSION])
            .map_err(|error| Error::caused(Kind::Internal, "encode a message", error))
    }

    /// The message behind bytes.
    ///
    /// # Errors
    /// When there is none, or its columns do not fit together.
    pub fn decode(bytes: &[u8]) -> std::result::Result<Self, NotAMessage> {
        let body = match bytes.split_first() {
            Some((&VERSION, body)) => body,
            Some((version, _)) => return Err(NotAMessage(format!("version {version}"))),
            None => return Err(NotAMessage("empty".to_owned())),
        };
        let wire: Wire<'_> = postcard::from_bytes(body).map_err(|error| NotAMessage(error.to_string()))?;
        let batch = wire.batch.into_owned();
        batch::check(&batch).map_err(|breach| NotAMessage(breach.0))?;
        Ok(Self {
            producer: wire.producer.into_owned(),
            number: wire.number,
            enters: wire.enters.map(std::borrow::Cow::into_owned),
            names: wire.names.into_owned(),
            batch,
            ledger: wire.ledger.into_iter().map(WireCounts::into_counts).collect(),
            dead_letters: wire.dead_letters.into_iter().map(WireDeadLetter::into_letter).collect(),
            trace: None,
        })
    }
}

/// The partition of a symbol: the same on every host and in every version.
pub fn partition_of(symbol: &str, partitions: u32) -> u32 {
    (xxhash_rust::xxh3::xxh3_64(symbol.as_bytes()) % u64::from(partitions.max(1))) as u32
}

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    producer: std::borrow::Cow<'a, str>,
    number: u64,
    enters: Option<std::borrow::Cow<'a, str>>,
    names: std::borrow::Cow<'a, [String]>,
    batch: std::borrow::Cow<'a, Batch>,
    ledger: Vec<WireCounts>,
    dead_letters: Vec<WireDeadLetter>,
}

#[derive(Serialize, Deserialize)]
struct WireCounts {
    stage_index: u32,
    stage: String,
    symbol: String,
    day: Option<i32>,
    /// Entered, out, duplicate, late, dead, derived.
    counts: [u64; 6],
    dropped: Vec<(String, u64)>,
}

impl WireCounts {
    fn of((key, counts): &(LedgerKey, Counts)) -> Self {
        Self {
            stage_index: key.stage_index,
            stage: key.stage.clone(),
            symbol: key.symbol.clone(),
            day: key.day.map(|day| day.0),
            counts: [counts.entered, counts.out, counts.duplicate, counts.late, counts.dead, counts.derived],
            dropped: counts.dropped.clone().into_iter().collect(),
        }
    }

    fn into_counts(self) -> (LedgerKey, Counts) {
        let [entered, out, duplicate, late, dead, derived] = self.counts;
        let dropped = self.dropped.into_iter().collect();
        let key =
            LedgerKey { stage_index: self.stage_index, stage: self.stage, symbol: self.symbol, day: self.day.map(Day) };
        (key, Counts { entered, out, duplicate, late, dead, dropped, derived })
    }
}

#[derive(Serialize, Deserialize)]
struct WireDeadLetter {
    is_late: bool,
    stage: String,
    component: String,
    symbol: String,
    time: Option<i64>,
    reason: String,
    origin: String,
    format: String,
    received: Option<i64>,
    payload: Vec<u8>,
}

impl WireDeadLetter {
    fn of(letter: &DeadLetter) -> Self {
        let DeadLetter { stage, component, symbol, time, reason, origin, format, received, payload, .. } =
            letter.clone();
        let is_late = letter.aside == Aside::Late;
        Self { is_late, stage, component, symbol, time, reason, origin, format, received, payload }
    }

    fn into_letter(self) -> DeadLetter {
        let Self { is_late, stage, component, symbol, time, reason, origin, format, received, payload } = self;
        let aside = if is_late { Aside::Late } else { Aside::Dead };
        DeadLetter {
            id: 0,
            aside,
            stage,
            component,
            symbol,
            time,
            reason,
            origin,
            format,
            received,
            payload,
            is_redriven: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"kind":"trade","symbol":"A","source":"s","time":"1970-01-01T00:00:00Z","id":1,"price":1}
{"kind":"watermark","time":"1970-01-01T00:00:01Z"}
{"kind":"trade","symbol":"B","source":"s","time":"1970-01-01T00:00:02Z","id":2,"price":2,"currency":"USD"}
{"kind":"trade","symbol":"C","source":"s","time":"1970-01-01T00:00:02Z","id":3,"price":2,"currency":"USD"}"#;

    fn lines(batch: &Batch, names: &Names) -> Vec<String> {
        batch::elements(batch)
            .map(|element| match element {
                Element::Event { group, at } => batch::to_line(&batch.groups[group], at, names),
                Element::Mark(at) => format!("mark {}", batch.marks[at]),
            })
            .collect()
    }

    fn message() -> (Message, Vec<String>) {
        let mut names = Names::default();
        names.intern("not in the batch");
        let batch = batch::from_lines(LINES.lines().map(str::as_bytes), None, &mut names).unwrap();
        let expected = lines(&batch, &names);
        let counts = Counts { entered: 3, dropped: [("rule".to_owned(), 2)].into(), ..Counts::default() };
        let key = LedgerKey { stage_index: 0, stage: "fetch".into(), symbol: "A".into(), day: Some(Day(3)) };
        let letter = WireDeadLetter {
            is_late: true,
            stage: "dedup".into(),
            component: "digest".into(),
            symbol: "A".into(),
            time: Some(7),
            reason: "why".into(),
            origin: "where".into(),
            format: "events".into(),
            received: None,
            payload: vec![0, 255],
        };
        let message = Message::pack(batch, &names);
        let (ledger, dead_letters) = (vec![(key, counts)], vec![letter.into_letter()]);
        (Message { enters: Some("alarm".to_owned()), ledger, dead_letters, ..message }, expected)
    }

    #[test]
    fn another_worker_reads_the_same() {
        let (message, expected) = message();
        let read = Message::decode(&message.encode().unwrap()).unwrap();
        // Numbers that are absent are NaN, which equals nothing.
        assert_eq!(read.encode().unwrap(), message.encode().unwrap());
        let mut others = Names::default();
        for other in ["USD", "x", "C"] {
            others.intern(other);
        }
        let batch = read.unpack(&mut others).unwrap();
        assert_eq!(lines(&batch, &others), expected);
    }

    #[test]
    fn a_message_is_cut_whatever_makes_it_large() {
        let (message, expected) = message();
        let large = |letters: usize, bytes: usize| {
            let letter = DeadLetter { payload: vec![b'x'; bytes], ..message.dead_letters[0].clone() };
            let key = |at: usize| LedgerKey { symbol: format!("symbol {at}"), ..message.ledger[0].0.clone() };
            let ledger = (0..100).map(|at| (key(at), message.ledger[0].1.clone())).collect();
            Message { dead_letters: vec![letter; letters], ledger, ..message.clone() }
        };
        for (letters, bytes) in [(50, 100), (1, 5_000), (3, 5_000)] {
            let pieces = large(letters, bytes).cut(1_000).unwrap();
            assert!(pieces.iter().all(|piece| piece.encode().unwrap().len() <= 1_000), "{letters} of {bytes}");
            let found: Vec<&DeadLetter> = pieces.iter().flat_map(|piece| &piece.dead_letters).collect();
            assert_eq!(found.len(), letters);
            assert!(bytes < 1_000 || found.iter().all(|letter| letter.reason.contains("5000 bytes is kept")));
            assert_eq!(pieces.iter().map(|piece| piece.ledger.len()).sum::<usize>(), 100);
            let mut names = Names::default();
            let events = pieces.iter().flat_map(|piece| {
                let batch = piece.unpack(&mut names).unwrap();
                lines(&batch, &names)
            });
            assert_eq!(events.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let (message, _) = message();
        let bytes = message.encode().unwrap();
        assert!(Message::decode(&[]).is_err());
        assert!(Message::decode(&[&[VERSION + 1], &bytes[1..]].concat()).is_err());
        for end in 1..bytes.len() {
            assert!(Message::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        let mut unknown = message;
        unknown.names.pop();
        assert_eq!(unknown.unpack(&mut Names::default()).unwrap_err().kind(), Kind::Corrupt);
    }

    #[test]
    fn partitions_share_the_marks_and_nothing_else() {
        let (message, expected) = message();
        let parts = message.clone().split(3);
        assert_eq!(parts.len(), 3);
        assert!(parts.iter().all(|part| part.enters.as_deref() == Some("alarm")));
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
