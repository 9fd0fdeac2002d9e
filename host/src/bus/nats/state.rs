//! State and position of a segment, in the stream that it gives out to.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use async_nats::jetstream::{message::StreamMessage, stream::LastRawMessageErrorKind};
use serde::{Deserialize, Serialize};

use super::{
    ANSWER_TIME_MAX, Broker, Hop, MESSAGE_BYTES_MAX,
    batch::{MESSAGES_MAX, Part, Refusal},
    unavailable,
};
use crate::{
    bus::{Message, TraceContext},
    contract::Entry,
    error::{Error, Kind, Result},
    store::{Commit, Progress, StateStore},
};

/// First byte of a piece of state. A change of what follows raises it.
const VERSION: u8 = 1;
/// Bytes of state entries that share a message; an entry has at most 256 KiB.
const PIECE_BYTES: usize = 512 * 1024;
/// What has changed since a snapshot may take so much before there is a new one, or twice the snapshot's size.
const CHANGES_BYTES_MAX: usize = 4 << 20;
/// Pause before a batch is tried again that the broker did not take.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

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
    /// Set when the host stops: a commit that the broker does not take is given up then.
    is_stopping: Arc<AtomicBool>,
    progress: Progress,
    /// Number in the stream of the position that was read or written last; 0 for none.
    sequence: u64,
    entries: BTreeMap<(String, String, u64), Entry>,
    snapshot_bytes: usize,
    changes_bytes: usize,
}

/// A producer's position, as it is stored.
#[derive(Serialize, Deserialize)]
struct Position {
    /// Tells this commit from any other.
    commit: String,
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
        let mut state = Self {
            broker,
            hop,
            producer: producer.to_owned(),
            outputs,
            is_stopping,
            progress: Progress::default(),
            sequence: 0,
            entries: BTreeMap::new(),
            snapshot_bytes: 0,
            changes_bytes: 0,
        };
        // Another worker may commit in between: then what was read is of two commits, and read again.
        loop {
            let before = state.read_position()?;
            state.read_entries()?;
            if state.read_position()?.0 == before.0 {
                state.sequence = before.0;
                state.progress = before.1.map(|position| position.progress).unwrap_or_default();
                return Ok(state);
            }
        }
    }

    /// Whether nobody else has committed since.
    ///
    /// # Errors
    /// `Unavailable` when the broker cannot be reached.
    pub fn is_current(&self) -> Result<bool> {
        Ok(self.read_position()?.0 == self.sequence)
    }

    fn read_position(&self) -> Result<(u64, Option<Position>)> {
        let subject = self.hop.position(&self.producer);
        let read = self.broker.wait(async {
            let stream = self.broker.stream(&self.hop).await?;
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
                for mut piece in part.cut(MESSAGE_BYTES_MAX)? {
                    let given = commit.progress.given.entry(partition).or_default();
                    *given += 1;
                    piece.producer.clone_from(&self.producer);
                    piece.number = *given;
                    messages.push((self.hop.data(partition), piece.encode()?));
                }
            }
        }
        Ok(messages)
    }

    /// Stores a batch, as often as it takes. Gives the number of the position.
    fn store(&self, parts: impl Fn() -> Vec<Part>, commit: &str) -> Result<u64> {
        let mut has_failed = false;
        loop {
            let answer = async { tokio::time::timeout(ANSWER_TIME_MAX, self.broker.store_together(parts())).await };
            let refusal = match self.broker.wait(answer) {
                Ok(Ok(sequence)) => return Ok(sequence),
                Ok(Err(refusal)) => refusal,
                Err(late) => Refusal::Unavailable(late.into()),
            };
            match refusal {
                Refusal::Overtaken => {
                    // It may have been stored by an attempt whose answer was lost.
                    match self.read_position() {
                        Ok((sequence, Some(position))) if has_failed && position.commit == commit => {
                            return Ok(sequence);
                        }
                        Ok(_) => {
                            let message = "be the only owner: another worker has taken this over";
                            return Err(Error::new(Kind::Conflict, message));
                        }
                        Err(error) if self.is_stopping.load(Ordering::Acquire) => return Err(error),
                        // Whose commit it is can be asked again.
                        Err(_) => thread::sleep(RETRY_PAUSE),
                    }
                }
                Refusal::Unavailable(error) => {
                    if !has_failed {
                        tracing::warn!(stream = self.hop.stream(), %error, "the broker does not take a commit; trying again");
                    }
                    if self.is_stopping.load(Ordering::Acquire) {
                        return Err(unavailable("commit".to_owned(), error));
                    }
                    has_failed = true;
                    thread::sleep(RETRY_PAUSE);
                }
            }
        }
    }
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
        let part = |subject: String, payload: &[u8]| Part {
            subject,
            payload: payload.to_vec(),
            is_rollup: false,
            expected: None,
            trace: None,
        };
        let parts = || {
            let first = part(self.hop.position(&self.producer), &position);
            let first = Part { is_rollup: true, expected: Some(self.sequence), ..first };
            let output =
                |(subject, bytes): &(String, Vec<u8>)| Part { trace: Some(trace), ..part(subject.clone(), bytes) };
            let state = |(at, bytes): (usize, &Vec<u8>)| Part {
                is_rollup: is_snapshot && at == 0,
                ..part(self.hop.state(&self.producer), bytes)
            };
            let outputs = outputs.iter().map(output);
            std::iter::once(first).chain(outputs).chain(pieces.iter().enumerate().map(state)).collect()
        };
        self.sequence = self.store(parts, &id)?;
        let (hop, producer, behind) = (&self.hop.stage, &self.producer, commit.trace.map(|trace| trace.to_string()));
        tracing::debug!(stage = hop, producer, %trace, behind, messages = outputs.len(), "committed");
        self.progress = commit.progress;
        Ok(self.progress.journal_sequence)
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
