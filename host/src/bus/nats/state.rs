//! State and position of a segment, in the stream that it gives out to.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use async_nats::jetstream::{message::StreamMessage, stream::LastRawMessageErrorKind};
use serde::{Deserialize, Serialize};

use super::{
    Broker, Hop, MESSAGE_BYTES_MAX,
    batch::{MESSAGES_MAX, Part},
    committer::Committer,
    unavailable,
};
use crate::{
    bus::{Message, TraceContext},
    contract::Entry,
    error::{Error, Kind, Result},
    store::{Commit, Progress, ReadFrom, StateStore},
};

/// First byte of a piece of state. A change of what follows raises it.
const VERSION: u8 = 1;
/// Bytes of state entries that share a message; an entry has at most 256 KiB.
const PIECE_BYTES: usize = 512 * 1024;
/// What has changed since a snapshot may take so much before there is a new one, or twice the snapshot's size.
const CHANGES_BYTES_MAX: usize = 4 << 20;

/// To which partitions a segment gives out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// To the one that it is.
    One(u32),
    /// To so many, by symbol.
    Split(u32),
}

/// State and position of a segment, and the way to the next one.
pub struct NatsState {
    broker: Broker,
    hop: Hop,
    producer: String,
    outputs: Outputs,
    committer: Committer,
    /// With the commit that is under way.
    progress: Progress,
    /// How far producers have been read by what is stored.
    settled: BTreeMap<String, ReadFrom>,
    /// Number in the stream of the position that was read or written last, but for the commit under way; 0 for none.
    sequence: u64,
    entries: BTreeMap<(String, String, u64), Entry>,
    snapshot_bytes: usize,
    changes_bytes: usize,
}

/// A producer's position, as it is stored.
#[derive(Serialize, Deserialize)]
pub(super) struct Position {
    /// Tells this commit from any other.
    pub(super) commit: String,
    progress: Progress,
}

impl NatsState {
    /// Reads the state and the position of a producer: a partition's number, or `source`.
    ///
    /// # Errors
    /// `Unavailable` when the broker cannot be reached; `Corrupt` when what is there cannot be read.
    pub fn load(
        broker: Broker,
        hop: Hop,
        producer: &str,
        outputs: Outputs,
        is_stopping: Arc<AtomicBool>,
    ) -> Result<Self> {
        let committer = Committer::start(broker.clone(), hop.clone(), producer.to_owned(), is_stopping);
        let mut state = Self {
            broker,
            hop,
            producer: producer.to_owned(),
            outputs,
            committer,
            settled: BTreeMap::new(),
            progress: Progress::default(),
            sequence: 0,
            entries: BTreeMap::new(),
            snapshot_bytes: 0,
            changes_bytes: 0,
        };
        // Another worker may commit in between: then what was read is of two commits, and read again.
        loop {
            let before = read_position(&state.broker, &state.hop, &state.producer)?;
            state.read_entries()?;
            if read_position(&state.broker, &state.hop, &state.producer)?.0 == before.0 {
                state.sequence = before.0;
                state.progress = before.1.map(|position| position.progress).unwrap_or_default();
                state.settled.clone_from(&state.progress.read);
                return Ok(state);
            }
        }
    }

    /// Whether nobody else has committed since.
    ///
    /// # Errors
    /// `Unavailable` when the broker cannot be reached; what became of the last commit.
    pub fn is_current(&mut self) -> Result<bool> {
        self.settle(true)?;
        Ok(read_position(&self.broker, &self.hop, &self.producer)?.0 == self.sequence)
    }

    fn read_entries(&mut self) -> Result<()> {
        self.entries.clear();
        (self.snapshot_bytes, self.changes_bytes) = (0, 0);
        let subject = self.hop.state(&self.producer);
        let mut next = 1;
        while let Some(message) = self.read_piece(&subject, next)? {
            next = message.sequence + 1;
            // Some of it is the snapshot: counting all as changes only makes the next snapshot come earlier.
            self.changes_bytes += message.payload.len();
            for (stage, entry) in decode(&message.payload)? {
                self.apply(stage, entry);
            }
        }
        Ok(())
    }

    fn read_piece(&self, subject: &str, from: u64) -> Result<Option<StreamMessage>> {
        let read = self.broker.wait(async {
            let stream = self.broker.stream(&self.hop).await?;
            match stream.get_first_raw_message_by_subject(subject, from).await {
                Ok(message) => Ok(Some(message)),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(async_nats::Error::from(error)),
            }
        });
        read.map_err(|error| unavailable(format!("read {subject}"), error))
    }

    fn apply(&mut self, stage: String, entry: Entry) {
        let key = (stage, entry.key.clone(), entry.part);
        if entry.value.is_some() {
            self.entries.insert(key, entry);
        } else {
            self.entries.remove(&key);
        }
    }

    /// What changes of the state, as pieces; whether they are a snapshot that takes the place of all before.
    fn state_pieces(&mut self, changes: Vec<(String, Vec<Entry>)>) -> Result<(Vec<Vec<u8>>, bool)> {
        let mut changed = Vec::new();
        for (stage, entries) in changes {
            for entry in entries {
                self.apply(stage.clone(), entry.clone());
                changed.push((stage.clone(), entry));
            }
        }
        let pieces = encode(changed.iter().map(|(stage, entry)| (stage, entry)))?;
        self.changes_bytes += pieces.iter().map(Vec::len).sum::<usize>();
        if self.changes_bytes <= CHANGES_BYTES_MAX.max(2 * self.snapshot_bytes) {
            return Ok((pieces, false));
        }
        let mut pieces = encode(self.entries.iter().map(|((stage, ..), entry)| (stage, entry)))?;
        if pieces.is_empty() {
            // Nothing is left, which must be said too.
            pieces.push(vec![VERSION]);
        }
        self.snapshot_bytes = pieces.iter().map(Vec::len).sum();
        self.changes_bytes = 0;
        Ok((pieces, true))
    }

    /// What is given out, as the subject and the bytes of each message.
    fn outputs(&mut self, commit: &mut Commit) -> Result<Vec<(String, Vec<u8>)>> {
        let mut out = std::mem::take(&mut commit.out);
        let counted: Vec<_> = std::mem::take(&mut commit.ledger).into_iter().collect();
        let dead_letters = std::mem::take(&mut commit.dead_letters);
        if out.is_empty() && !(counted.is_empty() && dead_letters.is_empty()) {
            out.push(Message::default());
        }
        if let Some(first) = out.first_mut() {
            (first.ledger, first.dead_letters) = (counted, dead_letters);
        }
        let mut messages = Vec::new();
        for message in out {
            let parts = match self.outputs {
                Outputs::One(partition) => vec![(partition, message)],
                Outputs::Split(partitions) => (0..).zip(message.split(partitions)).collect(),
            };
            for (partition, part) in parts.into_iter().filter(|(_, part)| !part.is_empty()) {
                for body in part.into_bodies(MESSAGE_BYTES_MAX)? {
                    let given = commit.progress.given.entry(partition).or_default();
                    *given += 1;
                    messages.push((self.hop.data(partition), body.into_message(&self.producer, *given)?));
                }
            }
        }
        Ok(messages)
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
    let position = serde_json::from_slice(&message.payload)
        .map_err(|error| Error::caused(Kind::Corrupt, format!("read the position in {subject}"), error))?;
    Ok((message.sequence, Some(position)))
}

impl StateStore for NatsState {
    fn progress(&self) -> Result<Progress> {
        Ok(self.progress.clone())
    }

    fn state(&self, stage: &str) -> Result<Vec<Entry>> {
        let of_stage = |((of, ..), entry): (&(String, String, u64), &Entry)| (of == stage).then(|| entry.clone());
        Ok(self.entries.iter().filter_map(of_stage).collect())
    }

    fn commit(&mut self, mut commit: Commit) -> Result<u64> {
        if !(commit.rows.is_empty() && commit.appends.is_empty() && commit.journal.is_empty()) {
            return Err(Error::invalid("commit rows, objects or raw records to a broker"));
        }
        // One at a time: the next one expects the position of this one.
        self.settle(true)?;
        let outputs = self.outputs(&mut commit)?;
        let (pieces, is_snapshot) = self.state_pieces(std::mem::take(&mut commit.state))?;
        let id = self.broker.client().new_inbox();
        let position = Position { commit: id.clone(), progress: commit.progress.clone() };
        let position = serde_json::to_vec(&position)
            .map_err(|error| Error::caused(Kind::Internal, "write the position", error))?;
        if 1 + outputs.len() + pieces.len() > MESSAGES_MAX {
            let (count, max) = (1 + outputs.len() + pieces.len(), MESSAGES_MAX);
            return Err(Error::invalid(format!("commit {count} messages at once; {max} are the most")));
        }
        let trace = TraceContext::of_commit(&id, commit.trace);
        let part = |subject: String, payload: Vec<u8>| Part {
            subject,
            payload: payload.into(),
            is_rollup: false,
            expected: None,
            trace: None,
        };
        let messages = outputs.len();
        let first = part(self.hop.position(&self.producer), position);
        let first = Part { is_rollup: true, expected: Some(self.sequence), ..first };
        let output = |(subject, bytes)| Part { trace: Some(trace), ..part(subject, bytes) };
        let state =
            |(at, bytes)| Part { is_rollup: is_snapshot && at == 0, ..part(self.hop.state(&self.producer), bytes) };
        let outputs = outputs.into_iter().map(output);
        let parts = std::iter::once(first).chain(outputs).chain(pieces.into_iter().enumerate().map(state)).collect();
        self.committer.begin(parts, id)?;
        let (hop, producer, behind) = (&self.hop.stage, &self.producer, commit.trace.map(|trace| trace.to_string()));
        tracing::debug!(stage = hop, producer, %trace, behind, messages, "committing");
        self.progress = commit.progress;
        Ok(self.progress.journal_sequence)
    }

    fn settle(&mut self, waits: bool) -> Result<Option<Duration>> {
        let Some(stored) = self.committer.settle(waits)? else { return Ok(None) };
        self.sequence = stored.sequence;
        self.settled.clone_from(&self.progress.read);
        Ok(Some(stored.took))
    }

    fn settled(&self) -> Option<&BTreeMap<String, ReadFrom>> {
        Some(&self.settled)
    }
}

fn encode<'a>(entries: impl Iterator<Item = (&'a String, &'a Entry)>) -> Result<Vec<Vec<u8>>> {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    for entry in entries {
        if pieces.last().is_none_or(|piece| piece.len() >= PIECE_BYTES) {
            pieces.push(vec![VERSION]);
        }
        let piece = pieces.pop().unwrap_or_default();
        let longer = postcard::to_extend(&entry, piece)
            .map_err(|error| Error::caused(Kind::Internal, "encode a state entry", error))?;
        pieces.push(longer);
    }
    Ok(pieces)
}

fn decode(piece: &[u8]) -> Result<Vec<(String, Entry)>> {
    let corrupt = |reason: String| Error::new(Kind::Corrupt, format!("read a piece of state: {reason}"));
    let mut rest = match piece.split_first() {
        Some((&VERSION, rest)) => rest,
        Some((version, _)) => return Err(corrupt(format!("version {version}"))),
        None => return Err(corrupt("it is empty".to_owned())),
    };
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (entry, behind) = postcard::take_from_bytes(rest).map_err(|error| corrupt(error.to_string()))?;
        entries.push(entry);
        rest = behind;
    }
    Ok(entries)
}
