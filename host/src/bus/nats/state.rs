//! State and position of a segment, in the stream that it gives out to.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use async_nats::jetstream::{message::StreamMessage, stream::LastRawMessageErrorKind};

use super::{
    Broker, Hop, MESSAGE_BYTES_MAX,
    batch::{MESSAGES_MAX, Part},
    committer::{Committer, Order},
    entries::Entries,
    position::{Head, Position, Small, read_position},
    unavailable,
};
use crate::{
    bus::{Message, TraceContext},
    contract::Entry,
    error::{Error, Kind, Result},
    store::{Commit, Progress, ReadFrom, Snapshot, StateStore},
};

/// First byte of a piece of state. A change of what follows raises it.
const VERSION: u8 = 1;
/// Bytes of state entries that share a message; an entry has at most 256 KiB.
const PIECE_BYTES: usize = 512 * 1024;
/// What has changed since a snapshot may take so much before there is a new one, or twice the snapshot's size.
const CHANGES_BYTES_MAX: usize = 4 << 20;

/// A commit of so many bytes is one message: what it gives out, and the state that has changed since the log was written.
const SMALL_BYTES_MAX: usize = 64 << 10;

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
    entries: Entries,
    /// Entries that have changed since the log was written; they are in the position.
    changes: BTreeMap<(String, String, u64), Entry>,
    snapshot_bytes: usize,
    changes_bytes: usize,
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
            entries: Entries::default(),
            changes: BTreeMap::new(),
            snapshot_bytes: 0,
            changes_bytes: 0,
        };
        // Another worker may commit in between: then what was read is of two commits, and read again.
        loop {
            let before = read_position(&state.broker, &state.hop, &state.producer)?;
            state.read_entries()?;
            if read_position(&state.broker, &state.hop, &state.producer)?.0 == before.0 {
                let Position { head, small } = before.1.unwrap_or_default();
                state.sequence = before.0;
                state.progress = head.progress;
                state.settled.clone_from(&state.progress.read);
                for (stage, entry) in small.changes {
                    state.change(stage, entry);
                }
                // Whoever has stored the position may not have come to it.
                let outputs =
                    small.outputs.into_iter().map(|(subject, bytes)| part(subject, bytes)).collect::<Vec<_>>();
                state.broker.publish_all(&outputs)?;
                return Ok(state);
            }
        }
    }

    /// A copy of the state of a stage, and the watermark, of what a producer has committed about now.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn peek(broker: &Broker, hop: &Hop, producer: &str, stage: &str) -> Result<(Vec<Entry>, i64)> {
        // What changes while it is read is of both moments: enough to try a version on.
        let pieces = read_pieces(broker, hop, producer)?;
        let mut entries = BTreeMap::new();
        let position = read_position(broker, hop, producer)?.1.unwrap_or_default();
        let written = pieces.into_iter().map(|piece| decode(&piece)).collect::<Result<Vec<_>>>()?;
        for (of, entry) in written.into_iter().flatten().chain(position.small.changes) {
            if of == stage {
                entries.insert((entry.key.clone(), entry.part), entry);
            }
        }
        let entries = entries.into_values().filter(|entry| entry.value.is_some()).collect();
        Ok((entries, position.head.progress.watermark))
    }

    /// How far a producer has come by what it has committed about now.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn progress_of(broker: &Broker, hop: &Hop, producer: &str) -> Result<Progress> {
        Ok(read_position(broker, hop, producer)?.1.unwrap_or_default().head.progress)
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
        self.entries = Entries::default();
        (self.snapshot_bytes, self.changes_bytes) = (0, 0);
        for piece in read_pieces(&self.broker, &self.hop, &self.producer)? {
            // Some of it is the snapshot: counting all as changes only makes the next snapshot come earlier.
            self.changes_bytes += piece.len();
            for (stage, entry) in decode(&piece)? {
                self.entries.apply(stage, entry);
            }
        }
        Ok(())
    }

    /// Notes an entry that has changed.
    fn change(&mut self, stage: String, entry: Entry) {
        self.changes.insert((stage.clone(), entry.key.clone(), entry.part), entry.clone());
        self.entries.apply(stage, entry);
    }

    /// Whether a commit can be one message.
    fn is_small(&self, outputs: &[(String, Vec<u8>)]) -> bool {
        let given_out = outputs.iter().map(|(subject, bytes)| subject.len() + bytes.len());
        let entry_bytes = |((stage, key, _), entry): (&(String, String, u64), &Entry)| {
            stage.len() + key.len() + entry.value.as_ref().map_or(0, Vec::len) + size_of::<Entry>()
        };
        let bytes = given_out
            .chain(self.changes.iter().map(entry_bytes))
            .try_fold(0_usize, |sum, bytes| Some(sum + bytes).filter(|sum| *sum <= SMALL_BYTES_MAX));
        bytes.is_some()
    }

    /// What has changed of the state since the log was written, as pieces; whether they are a snapshot that takes the place
    /// of all before.
    fn state_pieces(&mut self) -> Result<(Vec<Vec<u8>>, bool)> {
        let changed = std::mem::take(&mut self.changes);
        let pieces = encode(changed.iter().map(|((stage, ..), entry)| (stage, entry)))?;
        self.changes_bytes += pieces.iter().map(Vec::len).sum::<usize>();
        if self.changes_bytes <= CHANGES_BYTES_MAX.max(2 * self.snapshot_bytes) {
            return Ok((pieces, false));
        }
        let mut pieces = encode(self.entries.iter())?;
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

impl StateStore for NatsState {
    fn progress(&self) -> Result<Progress> {
        Ok(self.progress.clone())
    }

    fn state(&self, stage: &str) -> Result<Vec<Entry>> {
        Ok(self.entries.iter().filter(|(of, _)| *of == stage).map(|(_, entry)| entry.clone()).collect())
    }

    fn snapshot(&self, stage: &str) -> Result<Snapshot> {
        let (entries, stage) = (self.entries.clone(), stage.to_owned());
        Ok(Box::new(move || {
            Ok(entries.iter().filter(|(of, _)| **of == stage).map(|(_, entry)| entry.clone()).collect())
        }))
    }

    fn commit(&mut self, mut commit: Commit) -> Result<u64> {
        if !(commit.rows.is_empty() && commit.appends.is_empty() && commit.journal.is_empty()) {
            return Err(Error::invalid("commit rows, objects or raw records to a broker"));
        }
        // One at a time: the next one expects the position of this one.
        self.settle(true)?;
        let outputs = self.outputs(&mut commit)?;
        for (stage, entries) in std::mem::take(&mut commit.state) {
            for entry in entries {
                self.change(stage.clone(), entry);
            }
        }
        let id = self.broker.client().new_inbox();
        let trace = TraceContext::of_commit(&id, commit.trace);
        let messages = outputs.len();
        let head = Head { commit: id.clone(), progress: commit.progress.clone() };
        let is_small = self.is_small(&outputs);
        let small = if is_small {
            let changes = self.changes.iter().map(|((stage, ..), entry)| (stage.clone(), entry.clone()));
            Small { changes: changes.collect(), outputs: outputs.clone() }
        } else {
            Small::default()
        };
        let first = part(self.hop.position(&self.producer), Position { head, small }.encode()?);
        let first = Part { is_rollup: true, expected: Some(self.sequence), ..first };
        let output = |(subject, bytes)| Part { trace: Some(trace), ..part(subject, bytes) };
        let outputs = outputs.into_iter().map(output);
        let order = if is_small {
            Order { together: vec![first], then: outputs.collect(), commit: id }
        } else {
            let (pieces, is_snapshot) = self.state_pieces()?;
            let subject = self.hop.state(&self.producer);
            let piece = |(at, bytes)| Part { is_rollup: is_snapshot && at == 0, ..part(subject.clone(), bytes) };
            let state = pieces.into_iter().enumerate().map(piece);
            Order {
                together: std::iter::once(first).chain(outputs).chain(state).collect(),
                then: Vec::new(),
                commit: id,
            }
        };
        if order.together.len() > MESSAGES_MAX {
            let count = order.together.len();
            return Err(Error::invalid(format!("commit {count} messages at once; {MESSAGES_MAX} are the most")));
        }
        self.committer.begin(order)?;
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

/// The log of a producer's state, in order.
fn read_pieces(broker: &Broker, hop: &Hop, producer: &str) -> Result<Vec<bytes::Bytes>> {
    let subject = hop.state(producer);
    let mut pieces = Vec::new();
    let mut next = 1;
    while let Some(message) = read_piece(broker, hop, &subject, next)? {
        next = message.sequence + 1;
        pieces.push(message.payload);
    }
    Ok(pieces)
}

fn read_piece(broker: &Broker, hop: &Hop, subject: &str, from: u64) -> Result<Option<StreamMessage>> {
    let read = broker.wait(async {
        let stream = broker.stream(hop).await?;
        match stream.get_first_raw_message_by_subject(subject, from).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(async_nats::Error::from(error)),
        }
    });
    read.map_err(|error| unavailable(format!("read {subject}"), error))
}

/// A part of a batch, without anything special.
fn part(subject: String, payload: Vec<u8>) -> Part {
    Part { subject, payload: payload.into(), is_rollup: false, expected: None, trace: None }
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
