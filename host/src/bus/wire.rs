//! Messages as bytes.
//!
//! A version, who gave the message out and its number ([postcard](https://postcard.jamesmunns.com/wire-format)), and a
//! body: how long it is when it is not compressed, whether it is (zstd), and the rest in postcard. Times and ids are
//! differences to the one before them: they are most of a batch, and a broker's work grows with bytes more than with
//! anything else.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tapeline_events::Day;

use super::{Entrance, Message};
use crate::{
    batch,
    contract::{Batch, Columns, Group, Ids, Texts, TimeUnit},
    error::{Error, Kind, Result},
    store::{Aside, Counts, DeadLetter, LedgerKey},
};

/// First byte of a message. A change of what follows raises it.
const VERSION: u8 = 3;
/// The fastest that zstd is good at: it takes as long as the bytes that it saves take in a broker by half.
const COMPRESSION: i32 = -7;
/// A smaller body is not worth it: whoever sends single events waits for them.
const COMPRESS_BYTES_MIN: usize = 4 << 10;
/// A body that says that it is larger is none of ours.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Bytes that are no message of this version.
#[derive(Debug, thiserror::Error)]
#[error("not a message of version {VERSION}: {0}")]
pub struct NotAMessage(String);

/// What a message holds, as bytes.
pub(super) struct Body {
    bytes: Vec<u8>,
    /// How many bytes it has when it is not compressed, if it is.
    whole: Option<u32>,
}

/// What comes before the body.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    producer: Cow<'a, str>,
    number: u64,
    /// Bytes of the body, if it is compressed.
    whole: Option<u32>,
}

impl Message {
    /// What it holds, in as many bodies as it takes for none to have more than so many bytes. A dead letter that is too
    /// large keeps the beginning of its payload.
    ///
    /// # Errors
    /// `Invalid` for a single event that is larger: raw records are smaller, so that a stage must have made it so large.
    pub(super) fn into_bodies(self, bytes_max: usize) -> Result<Vec<Body>> {
        let body = Body::of(&self)?;
        if body.bytes.len() <= bytes_max {
            return Ok(vec![body]);
        }
        let bytes = body.bytes.len();
        let Some((first, second)) = self.halve(bytes_max) else {
            return Err(Error::invalid(format!("give out a message of {bytes} bytes: {bytes_max} are the most")));
        };
        let mut bodies = first.into_bodies(bytes_max)?;
        if let Some(second) = second {
            bodies.extend(second.into_bodies(bytes_max)?);
        }
        Ok(bodies)
    }

    /// The message behind bytes.
    ///
    /// # Errors
    /// When there is none, or its columns do not fit together.
    pub fn decode(bytes: &[u8]) -> std::result::Result<Self, NotAMessage> {
        let rest = match bytes.split_first() {
            Some((&VERSION, rest)) => rest,
            Some((version, _)) => return Err(NotAMessage(format!("version {version}"))),
            None => return Err(NotAMessage("empty".to_owned())),
        };
        let broken = |error: postcard::Error| NotAMessage(error.to_string());
        let (head, body): (Head<'_>, _) = postcard::take_from_bytes(rest).map_err(broken)?;
        let body = match head.whole {
            None => Cow::Borrowed(body),
            Some(whole) if whole as usize > BODY_BYTES_MAX => return Err(NotAMessage(format!("{whole} bytes"))),
            Some(whole) => {
                let whole = zstd::bulk::decompress(body, whole as usize);
                Cow::Owned(whole.map_err(|error| NotAMessage(error.to_string()))?)
            }
        };
        let wire: Wire<'_> = postcard::from_bytes(&body).map_err(broken)?;
        let batch = wire.batch.into_batch();
        batch::check(&batch).map_err(|breach| NotAMessage(breach.0))?;
        Ok(Self {
            producer: head.producer.into_owned(),
            number: head.number,
            enters: wire.enters.map(Cow::into_owned),
            names: wire.names.into_owned(),
            batch,
            ledger: wire.ledger.into_iter().map(WireCounts::into_counts).collect(),
            dead_letters: wire.dead_letters.into_iter().map(WireDeadLetter::into_letter).collect(),
            trace: None,
        })
    }
}

impl Body {
    fn of(message: &Message) -> Result<Self> {
        let wire = Wire {
            enters: message.enters.as_ref().map(Cow::Borrowed),
            names: message.names.as_slice().into(),
            batch: WireBatch::of(&message.batch),
            ledger: message.ledger.iter().map(WireCounts::of).collect(),
            dead_letters: message.dead_letters.iter().map(WireDeadLetter::of).collect(),
        };
        let failed =
            |error: Box<dyn std::error::Error + Send + Sync>| Error::caused(Kind::Internal, "encode a message", error);
        let room = Vec::with_capacity(batch::byte_count(&message.batch));
        let whole = postcard::to_extend(&wire, room).map_err(|error| failed(error.into()))?;
        if !(COMPRESS_BYTES_MIN..=BODY_BYTES_MAX).contains(&whole.len()) {
            return Ok(Self { bytes: whole, whole: None });
        }
        let bytes = zstd::bulk::compress(&whole, COMPRESSION).map_err(|error| failed(error.into()))?;
        Ok(Self { bytes, whole: u32::try_from(whole.len()).ok() })
    }

    /// The bytes of a message: number `number` of a producer's.
    ///
    /// # Errors
    /// `Internal`; memory does not run out quietly.
    pub(super) fn into_message(self, producer: &str, number: u64) -> Result<Vec<u8>> {
        let head = Head { producer: producer.into(), number, whole: self.whole };
        let mut room = Vec::with_capacity(self.bytes.len() + producer.len() + 2 * size_of::<Head<'_>>());
        room.push(VERSION);
        let mut message = postcard::to_extend(&head, room)
            .map_err(|error| Error::caused(Kind::Internal, "encode a message", error))?;
        message.extend_from_slice(&self.bytes);
        Ok(message)
    }
}

/// A [`Batch`].
#[derive(Serialize, Deserialize)]
struct WireBatch<'a> {
    groups: Vec<WireGroup<'a>>,
    order: Cow<'a, [u8]>,
    marks: Cow<'a, [i64]>,
}

/// A [`Group`].
#[derive(Serialize, Deserialize)]
struct WireGroup<'a> {
    source: u32,
    unit: TimeUnit,
    symbol: Cow<'a, [u32]>,
    time: Vec<i64>,
    received: Vec<i64>,
    id: WireIds<'a>,
    columns: Cow<'a, Columns>,
}

/// [`Ids`].
#[derive(Serialize, Deserialize)]
enum WireIds<'a> {
    Absent,
    Numbers(Vec<i64>),
    Texts(Cow<'a, Texts>),
}

impl<'a> WireBatch<'a> {
    fn of(batch: &'a Batch) -> Self {
        let group = |group: &'a Group| WireGroup {
            source: group.source,
            unit: group.unit,
            symbol: group.symbol.as_slice().into(),
            time: differences(group.time.iter().copied()),
            received: differences(group.received.iter().copied()),
            id: match &group.id {
                Ids::Absent => WireIds::Absent,
                Ids::Numbers(ids) => WireIds::Numbers(differences(ids.iter().map(|id| id.cast_signed()))),
                Ids::Texts(ids) => WireIds::Texts(Cow::Borrowed(ids)),
            },
            columns: Cow::Borrowed(&group.columns),
        };
        let groups = batch.groups.iter().map(group).collect();
        Self { groups, order: batch.order.as_slice().into(), marks: batch.marks.as_slice().into() }
    }

    fn into_batch(self) -> Batch {
        let group = |group: WireGroup<'_>| Group {
            source: group.source,
            unit: group.unit,
            symbol: group.symbol.into_owned(),
            time: sums(group.time),
            received: sums(group.received),
            id: match group.id {
                WireIds::Absent => Ids::Absent,
                WireIds::Numbers(ids) => Ids::Numbers(sums(ids).into_iter().map(i64::cast_unsigned).collect()),
                WireIds::Texts(ids) => Ids::Texts(ids.into_owned()),
            },
            columns: group.columns.into_owned(),
        };
        let groups = self.groups.into_iter().map(group).collect();
        Batch { groups, order: self.order.into_owned(), marks: self.marks.into_owned() }
    }
}

/// Each number less the one before it, around the ends of what a number can be.
fn differences(numbers: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut before = 0_i64;
    numbers.map(|number| number.wrapping_sub(std::mem::replace(&mut before, number))).collect()
}

/// The numbers behind their differences.
fn sums(mut differences: Vec<i64>) -> Vec<i64> {
    let mut sum = 0_i64;
    for number in &mut differences {
        sum = sum.wrapping_add(*number);
        *number = sum;
    }
    differences
}

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    enters: Option<Cow<'a, Entrance>>,
    names: Cow<'a, [String]>,
    batch: WireBatch<'a>,
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
    partition: Option<u32>,
}

impl WireDeadLetter {
    fn of(letter: &DeadLetter) -> Self {
        let DeadLetter { stage, component, symbol, time, reason, origin, format, received, payload, partition, .. } =
            letter.clone();
        let is_late = letter.aside == Aside::Late;
        Self { is_late, stage, component, symbol, time, reason, origin, format, received, payload, partition }
    }

    fn into_letter(self) -> DeadLetter {
        let Self { is_late, stage, component, symbol, time, reason, origin, format, received, payload, partition } =
            self;
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
            partition,
            is_redriven: false,
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::{
        bus::message::tests::{lines, message},
        names::Names,
    };

    fn bytes(message: &Message) -> Vec<u8> {
        Body::of(message).unwrap().into_message(&message.producer, message.number).unwrap()
    }

    #[test]
    fn numbers_of_any_size_have_differences() {
        let numbers = vec![0, i64::MAX, i64::MIN, -1, 5];
        assert_eq!(sums(differences(numbers.iter().copied())), numbers);
    }

    #[test]
    fn a_large_message_is_compressed() {
        let (message, _) = message();
        let letter = DeadLetter { payload: vec![b'x'; 100_000], ..message.dead_letters[0].clone() };
        let large = Message { dead_letters: vec![letter], ..message };
        let encoded = bytes(&large);
        assert!(encoded.len() < 10_000, "{} bytes", encoded.len());
        assert_eq!(Message::decode(&encoded).unwrap().dead_letters, large.dead_letters);
    }

    #[test]
    fn a_body_that_says_that_it_is_huge_is_refused() {
        let huge = Body { bytes: zstd::bulk::compress(&[0; 1_000], 1).unwrap(), whole: Some(u32::MAX) };
        assert!(Message::decode(&huge.into_message("p", 1).unwrap()).is_err());
        let lies = Body { bytes: zstd::bulk::compress(&[0; 1_000], 1).unwrap(), whole: Some(10) };
        assert!(Message::decode(&lies.into_message("p", 1).unwrap()).is_err());
    }

    #[test]
    fn another_worker_reads_the_same() {
        let (message, expected) = message();
        let message = Message { producer: "source".into(), number: 7, ..message };
        let read = Message::decode(&bytes(&message)).unwrap();
        // Numbers that are absent are NaN, which equals nothing.
        assert_eq!(bytes(&read), bytes(&message));
        assert_eq!((read.producer.as_str(), read.number), ("source", 7));
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
            // Nothing that compresses.
            let noise = (0..bytes as u64).map(|at| xxhash_rust::xxh3::xxh3_64(&at.to_le_bytes()) as u8).collect();
            let letter = DeadLetter { payload: noise, ..message.dead_letters[0].clone() };
            let key = |at: usize| LedgerKey { symbol: format!("symbol {at}"), ..message.ledger[0].0.clone() };
            let ledger = (0..100).map(|at| (key(at), message.ledger[0].1.clone())).collect();
            Message { dead_letters: vec![letter; letters], ledger, ..message.clone() }
        };
        for (letters, bytes) in [(50, 100), (1, 5_000), (3, 5_000)] {
            let bodies = large(letters, bytes).into_bodies(1_000).unwrap();
            assert!(bodies.iter().all(|body| body.bytes.len() <= 1_000), "{letters} of {bytes}");
            let piece = |body: Body| Message::decode(&body.into_message("p", 1).unwrap()).unwrap();
            let pieces: Vec<Message> = bodies.into_iter().map(piece).collect();
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
        let bytes = bytes(&message);
        assert!(Message::decode(&[]).is_err());
        assert!(Message::decode(&[&[VERSION + 1], &bytes[1..]].concat()).is_err());
        for end in 1..bytes.len() {
            assert!(Message::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        let mut unknown = message;
        unknown.names.pop();
        assert_eq!(unknown.unpack(&mut Names::default()).unwrap_err().kind(), Kind::Corrupt);
    }
}
