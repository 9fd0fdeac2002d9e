//! Where a producer is, as one message; with what small commits have changed and given out.
//!
//! An atomic batch costs a broker with file storage milliseconds, however small it is, and a single message a tenth of
//! one. So a small commit is one message: the position, with the changes of state since the log was written last and with
//! what is given out. Once it is stored what is given out is published; whoever goes on from the position publishes it
//! again, since the one before may not have come to it, and readers drop what they have seen.

use async_nats::jetstream::stream::LastRawMessageErrorKind;
use serde::{Deserialize, Serialize};

use super::{Broker, Hop, unavailable};
use crate::{
    contract::Entry,
    error::{Error, Kind, Result},
    store::Progress,
};

/// A producer's position.
#[derive(Default)]
pub(super) struct Position {
    pub(super) head: Head,
    pub(super) small: Small,
}

/// What is JSON, so that people can read it.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Head {
    /// Tells this commit from any other.
    pub(super) commit: String,
    pub(super) progress: Progress,
}

/// What small commits leave in the position.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Small {
    /// Entries, with their stages, that have changed since the log was written.
    pub(super) changes: Vec<(String, Entry)>,
    /// What the commit gives out: subjects and messages.
    pub(super) outputs: Vec<(String, Vec<u8>)>,
}

impl Position {
    /// A line of JSON, and the rest in postcard.
    ///
    /// # Errors
    /// `Internal`; memory does not run out quietly.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::caused(Kind::Internal, "write the position", error)
        };
        let mut bytes = serde_json::to_vec(&self.head).map_err(|error| failed(error.into()))?;
        bytes.push(b'\n');
        postcard::to_extend(&self.small, bytes).map_err(|error| failed(error.into()))
    }

    fn decode(bytes: &[u8]) -> std::result::Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let end = memchr::memchr(b'\n', bytes).ok_or("no line")?;
        let (head, small) = bytes.split_at(end);
        Ok(Self {
            head: serde_json::from_slice(head)?,
            small: postcard::from_bytes(small.get(1..).unwrap_or_default())?,
        })
    }
}

/// The last position of a producer, with its number in the stream; 0 and none when there is none.
pub(super) fn read_position(broker: &Broker, hop: &Hop, producer: &str) -> Result<(u64, Option<Position>)> {
    let subject = hop.position(producer);
    let read = broker.wait(async {
        let stream = broker.stream(hop).await?;
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(async_nats::Error::from(error)),
        }
    });
    let Some(message) = read.map_err(|error| unavailable(format!("read {subject}"), error))? else {
        return Ok((0, None));
    };
    let position = Position::decode(&message.payload)
        .map_err(|error| Error::caused(Kind::Corrupt, format!("read the position in {subject}"), error))?;
    Ok((message.sequence, Some(position)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_back() {
        let entry = Entry {
            key: "A".to_owned(),
            part: 1,
            version: 1,
            value: Some(vec![10, 0]),
            wake_at: None,
            expires_at: Some(-1),
        };
        let head = Head { commit: "c\n".to_owned(), progress: Progress { watermark: 5, ..Progress::default() } };
        let small = Small { changes: vec![("dedup".to_owned(), entry)], outputs: vec![("s".to_owned(), vec![b'\n'])] };
        let bytes = Position { head, small }.encode().unwrap();
        let read = Position::decode(&bytes).unwrap();
        assert_eq!((read.head.commit.as_str(), read.head.progress.watermark), ("c\n", 5));
        assert_eq!((read.small.changes.len(), read.small.outputs.len()), (1, 1));
        assert_eq!(read.encode().unwrap(), bytes);
        for end in 0..bytes.len() {
            assert!(Position::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
    }
}
