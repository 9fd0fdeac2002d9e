//! A partition: its commits, one behind the other.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tapeline_aws_protocol::{Answer, Commit, Counted, Refusal, RefusalKind, Request, check_append, check_rows};
use tapeline_events::Day;
use tapeline_invoke::{Counts, LedgerKey, contract::Entry};
use tapeline_state::{Changes, Next, Root, StateError};

use super::Shared;
use crate::{
    outbox::Outbox,
    sink::{Line, SinkError},
};

/// Times that one looks for what is committed while others commit.
const TRIES_MAX: usize = 16;
/// Pauses before what was committed is put in its places once more, after each time that a service did not take it. The
/// clients have tried several times by then.
const PAUSES: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];

/// What is committed along with the state of a partition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The stages of the segment and the partitions of the pipeline; empty before the first commit.
    layout: String,
    /// Commits; what each of them gave out is named by this.
    steps: u64,
    /// How far the host has read, as it writes it.
    progress: Vec<u8>,
}

/// A partition of the store, as one host works on it.
pub struct Partition {
    shared: Arc<Shared>,
    number: u32,
    /// What was committed last, once this has opened it, as far as is known here. It is in its places.
    known: Option<Root<Kept>>,
}

impl Partition {
    pub(super) const fn new(shared: Arc<Shared>, number: u32) -> Self {
        Self { shared, number, known: None }
    }

    /// Does what a host asks for.
    pub async fn answer(&mut self, request: Request) -> Answer {
        let answered = match request {
            Request::Read => self.read().await,
            Request::Open => self.open().await,
            Request::IsCurrent => self.is_current().await.map(Answer::Current),
            Request::Commit(commit) => self.commit(*commit).await.map(|()| Answer::Done),
            Request::Close => Ok(Answer::Done),
        };
        answered.unwrap_or_else(Answer::Refused)
    }

    async fn read(&self) -> Result<Answer, Refusal> {
        for _ in 0..TRIES_MAX {
            let root = self.begin().await?;
            match self.committed(&root).await {
                Err(refusal) if refusal.kind == RefusalKind::Conflict => {}
                read => return read,
            }
        }
        Err(busy())
    }

    async fn open(&mut self) -> Result<Answer, Refusal> {
        self.known = None;
        for _ in 0..TRIES_MAX {
            let root = self.begin().await?;
            let delivered = match Outbox::of_commit(&self.shared.scope(self.number), &root).await {
                Ok(outbox) => self.deliver(outbox.unwrap_or_default()).await,
                Err(error) => Err(unread(error)),
            };
            let committed = match delivered {
                Ok(()) => self.committed(&root).await,
                Err(refusal) => Err(refusal),
            };
            match committed {
                Err(refusal) if refusal.kind == RefusalKind::Conflict => {}
                Ok(committed) => {
                    self.known = Some(root);
                    return Ok(committed);
                }
                refused => return refused,
            }
        }
        Err(busy())
    }

    async fn is_current(&self) -> Result<bool, Refusal> {
        let Some(known) = &self.known else { return Ok(false) };
        Ok(self.shared.scope(self.number).begin().await.map_err(unread)?.id() == known.id())
    }

    async fn commit(&mut self, commit: Commit) -> Result<(), Refusal> {
        let Some(before) = self.known.take() else {
            return Err(Refusal::new(RefusalKind::Conflict, "commit to a partition that was not opened"));
        };
        match self.commit_behind(&before, commit).await {
            Ok(()) => Ok(()),
            // Nothing has happened: the host may go on with another commit.
            Err(refusal) if refusal.kind == RefusalKind::Invalid => {
                self.known = Some(before);
                Err(refusal)
            }
            Err(refusal) => Err(refusal),
        }
    }

    async fn commit_behind(&mut self, before: &Root<Kept>, commit: Commit) -> Result<(), Refusal> {
        let invalid = |reason: String| Refusal::new(RefusalKind::Invalid, format!("commit: {reason}"));
        let Commit { progress, state, rows, appends, ledger, aside } = commit;
        rows.iter().try_for_each(check_rows).map_err(invalid)?;
        appends.iter().try_for_each(check_append).map_err(invalid)?;
        let steps = before.meta.steps + 1;
        let (aside, ledger) = (lines_by_stage(aside), Line::of(added(ledger)).collect());
        let outbox = Outbox { step: steps, rows, appends, aside, ledger, ..Outbox::default() };
        let changes = state.into_iter().map(|(area, entries)| changes(area, entries));
        let changes = changes.collect::<Result<Vec<_>, _>>().map_err(invalid)?;
        let meta = Kept { layout: self.shared.layout(), steps, progress };
        let next = Next { meta: Some(meta), changes, outbox: outbox.pieces().map_err(unread)?, ..Next::default() };
        let scope = self.shared.scope(self.number);
        let root = scope.commit(before, next).await.map_err(unread)?;
        self.deliver(outbox).await?;
        self.known = Some(root);
        Ok(())
    }

    async fn begin(&self) -> Result<Root<Kept>, Refusal> {
        let root = self.shared.scope(self.number).begin().await.map_err(unread)?;
        let (stored, here) = (&root.meta.layout, self.shared.layout());
        if stored.is_empty() || *stored == here {
            return Ok(root);
        }
        let message = format!(
            "go on with partition {}: it was worked on as {stored}, and is {here} here; another layout takes another stack",
            self.number
        );
        Err(Refusal::new(RefusalKind::Invalid, message))
    }

    async fn committed(&self, root: &Root<Kept>) -> Result<Answer, Refusal> {
        let scope = self.shared.scope(self.number);
        let mut state = Vec::with_capacity(root.areas.len());
        for (stage, area) in &root.areas {
            let entries = scope.load_all(root.id(), area).await.map_err(unread)?;
            state.push((stage.clone(), entries.into_iter().map(stored).collect::<Result<_, _>>()?));
        }
        let progress = (root.id() > 0).then(|| root.meta.progress.clone());
        Ok(Answer::Committed { progress, state })
    }

    /// Puts what is committed in its places. What is there already stays as it is.
    async fn deliver(&self, outbox: Outbox) -> Result<(), Refusal> {
        if outbox.is_empty() {
            return Ok(());
        }
        let mut pauses = PAUSES.into_iter();
        loop {
            let delivered = self.shared.delivery.deliver(self.number, outbox.clone()).await;
            match (delivered, pauses.next()) {
                (Ok(()), _) => return Ok(()),
                (Err(_), Some(pause)) => tokio::time::sleep(pause).await,
                (Err(error), None) => return Err(undelivered(&error)),
            }
        }
    }
}

/// The entries of a stage that changed. A host wakes and forgets by itself, so that the store gets each entry as a value of
/// which it knows no times.
fn changes(area: String, entries: Vec<Entry>) -> Result<Changes, String> {
    let packed = |entry: Entry| {
        let Entry { key, part, version, wake_at, expires_at, value } = entry;
        let value = value.map(|value| postcard::to_allocvec(&(value, wake_at, expires_at))).transpose();
        let value = value.map_err(|error| error.to_string())?;
        Ok(Entry { key, part, version, value, wake_at: None, expires_at: None })
    };
    let entries = entries.into_iter().map(packed).collect::<Result<_, String>>()?;
    Ok(Changes { area, entries, looked: i64::MIN, watermark: i64::MIN, called: 0 })
}

/// An entry as the host gave it.
fn stored(entry: Entry) -> Result<Entry, Refusal> {
    let Entry { key, part, version, value, .. } = entry;
    let packed = value.unwrap_or_default();
    let corrupt = |error: postcard::Error| unread(StateError::Corrupt(format!("entry {key:?}, part {part}: {error}")));
    let (value, wake_at, expires_at) = postcard::from_bytes(&packed).map_err(corrupt)?;
    Ok(Entry { key, part, version, value: Some(value), wake_at, expires_at })
}

/// Additions to the same line together. Where a stage stands in the pipeline is none of the table's business.
fn added(ledger: Vec<Counted>) -> BTreeMap<LedgerKey, Counts> {
    let mut added: BTreeMap<LedgerKey, Counts> = BTreeMap::new();
    for Counted { stage, symbol, day, counts } in ledger {
        let key = LedgerKey { stage_index: 0, stage, symbol, day: day.map(Day) };
        added.entry(key).or_default().add(&counts);
    }
    added
}

/// What each stage has put aside, a line each: their places among those of the stage are part of their keys.
fn lines_by_stage(aside: Vec<(String, String)>) -> Vec<(String, Vec<u8>)> {
    let mut lines: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (stage, line) in aside {
        let lines = lines.entry(stage).or_default();
        lines.extend(line.into_bytes());
        lines.push(b'\n');
    }
    lines.into_iter().collect()
}

fn unread(error: StateError) -> Refusal {
    let kind = match &error {
        StateError::Conflict => RefusalKind::Conflict,
        StateError::Store(_) => RefusalKind::Unavailable,
        StateError::Corrupt(_) => RefusalKind::Corrupt,
        StateError::Full { .. } => RefusalKind::Invalid,
    };
    Refusal::new(kind, format!("commit to the store on AWS, or read it: {error}"))
}

fn undelivered(error: &SinkError) -> Refusal {
    Refusal::new(RefusalKind::Unavailable, format!("put what is committed in its place: {error}"))
}

fn busy() -> Refusal {
    Refusal::new(RefusalKind::Conflict, "read what is committed: others commit all the time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_comes_back_with_its_times() {
        let entry = |part, value: Option<Vec<u8>>, wake_at| Entry {
            key: "A".to_owned(),
            part,
            version: 3,
            value,
            wake_at,
            expires_at: wake_at.map(|time: i64| time + 1),
        };
        let entries = vec![entry(1, Some(vec![1]), Some(-7)), entry(2, Some(Vec::new()), None)];
        let changed = changes("a".to_owned(), entries.clone()).unwrap();
        assert!(changed.entries.iter().all(|entry| entry.wake_at.is_none() && entry.expires_at.is_none()));
        let back: Vec<Entry> = changed.entries.into_iter().map(|entry| stored(entry).unwrap()).collect();
        assert_eq!(back, entries);
        let deleted = changes("a".to_owned(), vec![entry(1, None, None)]).unwrap();
        assert_eq!(deleted.entries[0].value, None);
        let foreign = Entry { value: Some(vec![9, 9]), ..entry(1, None, None) };
        assert_eq!(stored(foreign).unwrap_err().kind, RefusalKind::Corrupt);
    }

    #[test]
    fn counts_of_a_line_go_together_and_lines_of_a_stage_do() {
        let count = |symbol: &str, entered| Counted {
            stage: "s".to_owned(),
            symbol: symbol.to_owned(),
            day: Some(3),
            counts: Counts { entered, ..Counts::default() },
        };
        let added = added(vec![count("A", 2), count("B", 1), count("A", 3)]);
        let found: Vec<_> = added.iter().map(|(key, counts)| (key.symbol.as_str(), key.day, counts.entered)).collect();
        assert_eq!(found, [("A", Some(Day(3)), 5), ("B", Some(Day(3)), 1)]);
        let aside = [("s", "1"), ("t", "2"), ("s", "3")].map(|(stage, line)| (stage.to_owned(), line.to_owned()));
        let lines = lines_by_stage(aside.into());
        assert_eq!(lines, [("s".to_owned(), b"1\n3\n".to_vec()), ("t".to_owned(), b"2\n".to_vec())]);
    }
}
