//! What travels on the queues.
//!
//! A message of ours is a word that says what it is, and base64 of postcard: SQS takes texts alone. What is anything else,
//! on the first queue, is records as a vendor sent them. A message has at most [`MESSAGE_BYTES_MAX`], and what is too large
//! for one is cut into several by rules that depend on the events alone, so that doing it again gives the same messages.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tapeline_invoke::{Hop, batch, contract::Batch, names::Names};

/// Bytes of a message: what SQS has always taken, a quarter of what it takes today.
pub const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Bytes of a message before it is a text: a third is added by base64.
pub const PAYLOAD_BYTES_MAX: usize = 190_000;
/// Bytes of records in a message: as many as fit, with their format.
pub const RECORDS_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - 1_000;
/// The group of the first queue: what enters has one order.
pub const ENTRANCE_GROUP: &str = "0";

const RAW: &str = "tapeline-raw:";
const HOP: &str = "tapeline-hop:";

/// What enters a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Raw {
    /// Records, one a line.
    Records {
        /// How to read them.
        format: String,
        /// When they were received, ns since the epoch; by SQS if nothing is said.
        received: Option<i64>,
        /// The lines.
        body: Vec<u8>,
    },
    /// The watermark has come so far, ns since the epoch; `i64::MAX` says that nothing comes any more.
    Mark(i64),
}

/// What goes from one function to the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numbered {
    /// Its number in its group, from 1, without gaps.
    pub number: u64,
    /// The events and marks.
    pub hop: Hop,
}

/// A message that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is {0}")]
pub struct Unreadable(String);

impl Raw {
    /// As a message.
    pub fn encode(&self) -> String {
        encode(RAW, self)
    }

    /// What a message says; records in `format` when it is none of ours.
    ///
    /// # Errors
    /// When it begins as one of ours and is none.
    pub fn decode(message: &str, format: &str) -> Result<Self, Unreadable> {
        if let Some(decoded) = decode(RAW, message) {
            return decoded;
        }
        if message.starts_with(HOP) {
            return Err(Unreadable("one between functions, on the queue into the first".to_owned()));
        }
        Ok(Self::Records { format: format.to_owned(), received: None, body: message.as_bytes().to_vec() })
    }
}

impl Numbered {
    /// As a message.
    pub fn encode(&self) -> String {
        encode(HOP, self)
    }

    /// What a message says.
    ///
    /// # Errors
    /// When it is none of ours.
    pub fn decode(message: &str) -> Result<Self, Unreadable> {
        decode(HOP, message).unwrap_or_else(|| Err(Unreadable(format!("none that begins with {HOP:?}"))))
    }
}

fn encode(kind: &str, value: &impl Serialize) -> String {
    let mut message = kind.to_owned();
    // Numbers, texts and lists of known length can always be written.
    BASE64_STANDARD.encode_string(postcard::to_allocvec(value).unwrap_or_default(), &mut message);
    message
}

fn decode<T: DeserializeOwned>(kind: &str, message: &str) -> Option<Result<T, Unreadable>> {
    let unreadable = |error: &dyn std::fmt::Display| Unreadable(format!("damaged: {error}"));
    let bytes = BASE64_STANDARD.decode(message.strip_prefix(kind)?);
    let bytes = bytes.map_err(|error| unreadable(&error));
    Some(bytes.and_then(|bytes| postcard::from_bytes(&bytes).map_err(|error| unreadable(&error))))
}

/// Events cut into what fits into messages.
#[derive(Debug, Default)]
pub struct Cut {
    /// What fits, in order.
    pub hops: Vec<Hop>,
    /// Events that fit into no message, each alone in a batch.
    pub too_large: Vec<Batch>,
}

/// Cuts events into what fits into messages.
pub fn cut(events: Batch, names: &Names) -> Cut {
    let mut out = Cut::default();
    let mut rest = vec![events];
    while let Some(events) = rest.pop() {
        let count = elements(&events);
        if count == 0 {
            continue;
        }
        // Ten times too much is seen without writing it.
        let parts = (batch::byte_count(&events) / PAYLOAD_BYTES_MAX / 2 + 1).min(count);
        if parts > 1 {
            rest.extend(pieces(&events, count, parts).rev());
            continue;
        }
        let hop = Hop::pack(events.clone(), names);
        let numbered = Numbered { number: u64::MAX, hop };
        let bytes = postcard::to_allocvec(&numbered).map_or(usize::MAX, |bytes| bytes.len());
        if bytes <= PAYLOAD_BYTES_MAX {
            out.hops.push(numbered.hop);
        } else if count == 1 {
            out.too_large.push(events);
        } else {
            rest.extend(pieces(&events, count, 2).rev());
        }
    }
    out
}

/// Number of events and marks.
pub fn elements(events: &Batch) -> usize {
    batch::event_count(events) + events.marks.len()
}

fn pieces(events: &Batch, count: usize, parts: usize) -> impl DoubleEndedIterator<Item = Batch> {
    let size = count.div_ceil(parts);
    let pieces: Vec<Batch> =
        (0..count).step_by(size).map(|from| batch::slice(events, from..(from + size).min(count))).collect();
    pieces.into_iter()
}

/// Records as messages, in order, each as full as it can be.
///
/// # Errors
/// The place, from 0, and the bytes of a record that fits into none.
pub fn pack_records(records: &[&[u8]], format: &str, received: Option<i64>) -> Result<Vec<Raw>, (usize, usize)> {
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    for (at, record) in records.iter().enumerate() {
        if record.len() > RECORDS_BYTES_MAX {
            return Err((at, record.len()));
        }
        match bodies.last_mut().filter(|body| body.len() + 1 + record.len() <= RECORDS_BYTES_MAX) {
            Some(body) => {
                body.push(b'\n');
                body.extend_from_slice(record);
            }
            None => bodies.push(record.to_vec()),
        }
    }
    Ok(bodies.into_iter().map(|body| Raw::Records { format: format.to_owned(), received, body }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(count: usize, names: &mut Names) -> Batch {
        let lines: Vec<String> = (0..count)
            .map(|at| {
                format!(
                    r#"{{"kind":"trade","symbol":"S{}","source":"x","time":"2024-08-09T00:00:00Z","id":{at},"price":1.5}}"#,
                    at % 7
                )
            })
            .chain([r#"{"kind":"watermark","time":"2024-08-09T00:00:00Z"}"#.to_owned()])
            .collect();
        batch::from_lines(lines.iter().map(String::as_bytes), None, names).unwrap()
    }

    #[test]
    fn events_are_cut_into_messages_that_fit_and_nothing_is_lost() {
        let mut names = Names::default();
        let whole = events(20_000, &mut names);
        let cut = cut(whole.clone(), &names);
        assert!(cut.hops.len() > 2 && cut.too_large.is_empty());
        let mut joined = batch::empty();
        for hop in cut.hops {
            let message = Numbered { number: u64::MAX, hop }.encode();
            assert!(message.len() <= MESSAGE_BYTES_MAX, "{}", message.len());
            let hop = Numbered::decode(&message).unwrap().hop;
            joined = batch::join(joined, hop.unpack(&mut names).unwrap()).unwrap();
        }
        let lines = |batch: &Batch| {
            let events = batch::elements(batch).filter_map(|element| match element {
                batch::Element::Event { group, at } => Some(batch::to_line(&batch.groups[group], at, &names)),
                batch::Element::Mark(_) => None,
            });
            events.collect::<Vec<_>>()
        };
        assert_eq!((lines(&joined), &joined.marks), (lines(&whole), &whole.marks));
    }

    #[test]
    fn an_event_that_fits_into_no_message_is_told() {
        let mut names = Names::default();
        let text = "x".repeat(PAYLOAD_BYTES_MAX);
        let line = format!(r#"{{"kind":"notice","symbol":"S","time":"2024-08-09T00:00:00Z","text":"{text}"}}"#);
        let small = r#"{"kind":"notice","symbol":"S","time":"2024-08-09T00:00:00Z","text":"y"}"#;
        let lines = [small.as_bytes(), line.as_bytes(), small.as_bytes()];
        let cut = cut(batch::from_lines(lines.into_iter(), None, &mut names).unwrap(), &names);
        assert_eq!((cut.hops.len(), cut.too_large.len()), (2, 1));
    }

    #[test]
    fn records_fill_messages_and_what_is_none_of_ours_is_records() {
        let record = vec![b'x'; RECORDS_BYTES_MAX / 2];
        let raw = pack_records(&[&record, b"y", &record, b"z"], "binance", Some(7)).unwrap();
        assert_eq!(raw.len(), 2);
        for raw in raw {
            let message = raw.encode();
            assert!(message.len() <= MESSAGE_BYTES_MAX);
            assert_eq!(Raw::decode(&message, "events"), Ok(raw));
        }
        let large = vec![b'x'; RECORDS_BYTES_MAX + 1];
        assert_eq!(pack_records(&[b"a", &large], "binance", None), Err((1, large.len())));
        let line = Raw::Records { format: "finnhub".to_owned(), received: None, body: b"{\"a\":1}".to_vec() };
        assert_eq!(Raw::decode("{\"a\":1}", "finnhub"), Ok(line));
        assert!(Raw::decode("tapeline-raw:?", "finnhub").is_err());
        assert!(Numbered::decode("{}").is_err());
    }
}
