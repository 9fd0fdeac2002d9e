//! The last segment of a chain with its store on AWS, which any number of hosts share: state and position of each partition
//! in DynamoDB, rows, ledger and dead letters too, files in S3.
//!
//! A process of its own has AWS' clients (`tapeline-aws store`, crate `tapeline-aws`); this is what speaks with it.

mod link;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::json;
use tapeline_aws_protocol::{Answer, Commit as Sent, Counted, Refusal, RefusalKind, Request, check_append, check_rows};
use tapeline_events::{Unit, format_time};

use self::link::Link;
use super::{Aside, CheckWritten, Commit, DeadLetter, Progress, StateStore};
use crate::{
    contract::Entry,
    error::{Error, Kind, Result},
};

/// First byte of a position. A change of what follows raises it.
const VERSION: u8 = 1;

/// Which store, and how it is reached.
#[derive(Clone, Debug)]
pub struct AwsSettings {
    /// The program `tapeline-aws`.
    pub program: PathBuf,
    /// The stack.
    pub stack: String,
    /// The pipeline.
    pub pipeline: String,
    /// The stages of the last segment.
    pub stages: Vec<String>,
    /// Parts into which symbols are divided.
    pub partitions: u32,
    /// Variables of its environment that are others than ours, and those that are none of its business.
    pub environment: BTreeMap<String, Option<String>>,
}

/// The stores of all partitions. Cheap to clone; the process ends with the last one.
#[derive(Clone)]
pub struct AwsStores(Arc<Shared>);

struct Shared {
    settings: AwsSettings,
    link: Mutex<Option<Arc<Link>>>,
    /// Whether a process has found the stack once.
    has_begun: AtomicBool,
}

/// The store of a partition.
pub struct AwsStore {
    /// The process that opened the partition: another one knows nothing of it.
    link: Arc<Link>,
    session: u64,
    partition: u32,
    progress: Progress,
    state: BTreeMap<String, Entries>,
}

/// The entries of each stage.
type State = Vec<(String, Vec<Entry>)>;

/// By key and part.
type Entries = BTreeMap<(String, u64), Entry>;

impl AwsStores {
    /// Starts the process, which finds the stack.
    ///
    /// # Errors
    /// `Invalid` when the stack is not there, is of another pipeline or has functions; `Unavailable` when AWS, or the
    /// process, does not answer.
    pub fn start(settings: AwsSettings) -> Result<Self> {
        let stores = Self(Arc::new(Shared { settings, link: Mutex::default(), has_begun: AtomicBool::new(false) }));
        stores.link()?;
        Ok(stores)
    }

    /// The name of the stack.
    pub fn stack(&self) -> &str {
        &self.0.settings.stack
    }

    /// Opens a partition to commit to it. What was committed last is in its places then.
    ///
    /// # Errors
    /// `Unavailable` when AWS does not answer; `Invalid` when the partition was worked on with other fused stages or another
    /// number of partitions; `Corrupt` when what is there cannot be read.
    pub fn open(&self, partition: u32) -> Result<AwsStore> {
        let link = self.link()?;
        let session = link.session();
        // Before it is opened, so that it is closed whatever happens.
        let mut store = AwsStore { link, session, partition, progress: Progress::default(), state: BTreeMap::new() };
        let (progress, state) = committed(store.ask(Request::Open)?)?;
        store.progress = progress;
        store.state = state.into_iter().map(|(stage, entries)| (stage, by_place(entries))).collect();
        Ok(store)
    }

    /// A copy of what is committed in a partition: how far it has come, and the entries of each stage.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn read(&self, partition: u32) -> Result<(Progress, State)> {
        let link = self.link()?;
        let place = (link.session(), partition);
        let read = link.ask(place, Request::Read)?;
        link.ask(place, Request::Close)?;
        committed(read)
    }

    /// Whether anything of a chain has been read into it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn is_used(&self) -> Result<bool> {
        for partition in 0..self.0.settings.partitions {
            if !self.read(partition)?.0.read.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The process; a new one when there is none any more.
    fn link(&self) -> Result<Arc<Link>> {
        let mut kept = self.0.link.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = kept.as_ref().filter(|link| link.is_up()) {
            return Ok(Arc::clone(link));
        }
        // What the one before is still at, it and the new one settle between them, as two hosts do.
        *kept = None;
        let has_begun = &self.0.has_begun;
        let started = Link::start(&self.0.settings).map_err(|error| match error.kind() {
            // What was right once is right again: credentials that are not to be had at present, say.
            Kind::Invalid | Kind::NotFound if has_begun.load(Ordering::Acquire) => {
                Error::caused(Kind::Unavailable, "find the store on AWS once more", error)
            }
            _ => error,
        });
        let link = Arc::new(started?);
        has_begun.store(true, Ordering::Release);
        *kept = Some(Arc::clone(&link));
        Ok(link)
    }
}

impl AwsStore {
    fn ask(&self, request: Request) -> Result<Answer> {
        self.link.ask((self.session, self.partition), request)
    }

    /// Whether nobody else has committed since.
    ///
    /// # Errors
    /// `Unavailable` when AWS does not answer.
    pub fn is_current(&self) -> Result<bool> {
        match self.ask(Request::IsCurrent)? {
            Answer::Current(is_current) => Ok(is_current),
            other => Err(unexpected(&other)),
        }
    }
}

impl Drop for AwsStore {
    fn drop(&mut self) {
        // A process that is gone has closed it.
        if self.link.is_up() {
            let _ = self.ask(Request::Close);
        }
    }
}

impl StateStore for AwsStore {
    fn progress(&self) -> Result<Progress> {
        Ok(self.progress.clone())
    }

    fn state(&self, stage: &str) -> Result<Vec<Entry>> {
        Ok(self.state.get(stage).map_or_else(Vec::new, |entries| entries.values().cloned().collect()))
    }

    fn check_written(&self) -> CheckWritten {
        |rows, appends| {
            rows.iter().try_for_each(check_rows)?;
            appends.iter().try_for_each(check_append)
        }
    }

    fn commit(&mut self, commit: Commit) -> Result<u64> {
        if !(commit.out.is_empty() && commit.journal.is_empty()) {
            return Err(Error::invalid("commit messages or raw records to AWS: the last segment gives out neither"));
        }
        let Commit { progress, state, rows, appends, ledger, dead_letters, .. } = commit;
        let counted = ledger.into_iter().map(|(key, counts)| Counted {
            stage: key.stage,
            symbol: key.symbol,
            day: key.day.map(|day| day.0),
            counts,
        });
        let sent = Sent {
            progress: encode(&progress)?,
            state: state.clone(),
            rows,
            appends,
            ledger: counted.collect(),
            aside: dead_letters.iter().map(|letter| (letter.stage.clone(), line_of(letter))).collect(),
        };
        match self.ask(Request::Commit(Box::new(sent)))? {
            Answer::Done => {}
            other => return Err(unexpected(&other)),
        }
        for (stage, entries) in state {
            let kept = self.state.entry(stage).or_default();
            for entry in entries {
                let place = (entry.key.clone(), entry.part);
                match entry.value {
                    Some(_) => kept.insert(place, entry),
                    None => kept.remove(&place),
                };
            }
        }
        self.progress = progress;
        Ok(self.progress.journal_sequence)
    }
}

fn by_place(entries: Vec<Entry>) -> Entries {
    entries.into_iter().map(|entry| ((entry.key.clone(), entry.part), entry)).collect()
}

fn committed(answer: Answer) -> Result<(Progress, State)> {
    match answer {
        Answer::Committed { progress, state } => {
            Ok((progress.map_or_else(|| Ok(Progress::default()), |bytes| decode(&bytes))?, state))
        }
        other => Err(unexpected(&other)),
    }
}

/// A position, as text that people can read in the table.
fn encode(progress: &Progress) -> Result<Vec<u8>> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, progress)
        .map_err(|error| Error::caused(Kind::Internal, "encode a position", error))?;
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Progress> {
    let corrupt = |reason: String| Error::new(Kind::Corrupt, format!("read a position: {reason}"));
    match bytes.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|error| corrupt(error.to_string())),
        Some((version, _)) => Err(corrupt(format!("version {version}"))),
        None => Err(corrupt("it is empty".to_owned())),
    }
}

/// A dead letter as the table of them has it.
fn line_of(letter: &DeadLetter) -> String {
    let DeadLetter { aside, stage: _, component, symbol, time, reason, origin, format, received, payload, .. } = letter;
    let fate = match aside {
        Aside::Dead => "dead",
        Aside::Late => "late",
    };
    let text = String::from_utf8_lossy(payload);
    let time_text = |time: &Option<i64>| time.map(|time| format_time(time, Unit::Nanoseconds));
    let mut line = json!({ "kind": "reject", "fate": fate, "reason": reason });
    let known = [
        ("component", Some(component.clone())),
        ("symbol", Some(symbol.clone())),
        ("time", time_text(time)),
        ("origin", Some(origin.clone())),
        ("format", Some(format.clone())),
        ("received", time_text(received)),
        ("record", Some(text.into_owned())),
    ];
    for (name, value) in known {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            line[name] = value.into();
        }
    }
    line.to_string()
}

fn unexpected(answer: &Answer) -> Error {
    match answer {
        Answer::Refused(Refusal { kind, message }) => {
            let kind = match kind {
                RefusalKind::Unavailable => Kind::Unavailable,
                RefusalKind::Invalid => Kind::Invalid,
                RefusalKind::Conflict => Kind::Conflict,
                RefusalKind::Corrupt => Kind::Corrupt,
            };
            Error::new(kind, message.clone())
        }
        _ => Error::new(Kind::Internal, "use the store on AWS: its process answers what it was not asked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let progress = Progress { watermark: 7, journal: "j".to_owned(), ..Progress::default() };
        let bytes = encode(&progress).unwrap();
        assert_eq!(decode(&bytes).unwrap(), progress);
        assert!(decode(&[]).is_err() && decode(&bytes[1..]).is_err());
    }

    #[test]
    fn a_dead_letter_says_what_is_known() {
        let letter = DeadLetter {
            id: 0,
            aside: Aside::Late,
            stage: "aggregate".to_owned(),
            component: "0f".to_owned(),
            symbol: String::new(),
            time: Some(0),
            reason: "its time is \"over\"".to_owned(),
            origin: "0 message 7".to_owned(),
            format: "events".to_owned(),
            received: None,
            payload: br#"{"kind":"trade"}"#.to_vec(),
            partition: Some(1),
            is_redriven: false,
        };
        let line: serde_json::Value = serde_json::from_str(&line_of(&letter)).unwrap();
        assert_eq!((&line["fate"], &line["reason"]), (&"late".into(), &"its time is \"over\"".into()));
        assert_eq!(
            (&line["record"], &line["time"]),
            (&r#"{"kind":"trade"}"#.into(), &"1970-01-01T00:00:00.000000000Z".into())
        );
        assert!(line.get("symbol").is_none() && line.get("received").is_none());
    }
}
