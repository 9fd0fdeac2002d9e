//! Commits.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join;
use serde::{Deserialize, Serialize};
use tapeline_invoke::contract::Entry;

use super::{
    Meta, Request, Scope,
    answers::Kept,
    bucket::{Bucket, Head, StateError, delete_all, encode, set_all},
    tree::{self, Area, Edits, Outbox, Page, Place, Record, Root, Slot},
};

/// Pages of attempts between two commits that are deleted, the last ones: of 256 attempts with 2 MiB each. Those that were
/// too slow delete their own, so that only those of killed ones are left; and those of one that has written after that
/// commit, and is killed before its swap.
const LOST_PAGES_MAX: u64 = 16_384;
/// Commits that a root knows to have been before it: of so many an attempt can tell whether it was one of them.
const BEFORE_MAX: usize = 64;
/// Bytes of a head besides the root.
const HEAD_BYTES: usize = 8;
/// Bytes of an outbox that is stored with the root: a message of SQS fits, and a third of an item of DynamoDB.
const OUTBOX_HERE_BYTES_MAX: usize = 128 << 10;
/// Bytes by which a root grows when it gets an outbox, besides those of the outbox.
const ROOM_BYTES: usize = 32;
/// Where the numbers of pages begin that have none yet: what a root has in bytes does not grow when they get theirs.
const UNNUMBERED: u64 = 1 << 63;
/// Seconds that an area's last call may be wrong by.
const CALLED_SECONDS: u64 = 60;

/// What a stage, or a session with it, changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// The area's name.
    pub area: String,
    /// Its entries; one without a value is deleted. The timer of a key is the first of those that come with its entries,
    /// instead of any before.
    pub entries: Vec<Entry>,
    /// It was given the keys whose timer comes up to this time. Those that it left as they were need no timer any more.
    pub looked: i64,
    /// The newest watermark that it was told; `i64::MIN` for none.
    pub watermark: i64,
    /// When that was, seconds since the epoch; 0 if nobody wants to know.
    pub called: u64,
}

/// What a commit changes.
#[derive(Clone, Debug)]
pub struct Next<'a, M> {
    /// What is committed along with the state; as before if there is none.
    pub meta: Option<M>,
    /// Each area once at most.
    pub changes: Vec<Changes>,
    /// An area that is to be forgotten.
    pub forgotten: Option<String>,
    /// Whoever asked, and what it is answered, for when it asks again.
    pub answer: Option<(Request<'a>, Vec<u8>)>,
    /// What is to be sent once this has happened, in pieces: the next commit takes its place.
    pub outbox: Vec<Vec<u8>>,
}

impl<M> Default for Next<'_, M> {
    fn default() -> Self {
        Self { meta: None, changes: Vec::new(), forgotten: None, answer: None, outbox: Vec::new() }
    }
}

/// What an attempt will write.
#[derive(Default)]
struct Draft {
    pages: Vec<Vec<u8>>,
    replaced: Vec<Page>,
}

impl Draft {
    fn add(&mut self, bytes: Vec<u8>) -> Page {
        let page = Page(UNNUMBERED + self.pages.len() as u64);
        self.pages.push(bytes);
        page
    }
}

impl<B: Bucket, M: Meta> Scope<'_, B, M> {
    /// Lets a commit happen, as the one behind `before`, and gives what is committed then. One that changes nothing is not
    /// written.
    ///
    /// # Errors
    /// `Conflict` when `before` is no longer the last; `Full` when an area would become too large, or something in it is for
    /// the store. None of these has happened; after any other error it may have.
    pub async fn commit(&self, before: &Root<M>, next: Next<'_, M>) -> Result<Root<M>, StateError> {
        if !changes_anything(before, &next) {
            return Ok(before.clone());
        }
        let mut draft = Draft::default();
        let mut root = Root { id: u64::MAX, previous: before.id, ..before.clone() };
        root.before.push(before.id);
        let forgotten = root.before.len().saturating_sub(BEFORE_MAX);
        root.before.drain(..forgotten);
        let forgotten = next.forgotten.and_then(|name| root.areas.remove(&name));
        draft.replaced.extend(forgotten.iter().flat_map(|area| &area.leaves).map(|leaf| leaf.page));
        for changes in next.changes {
            let name = changes.area.clone();
            let area = root.areas.remove(&name).unwrap_or_default();
            let area = self.change(before.id, area, changes, &mut draft).await?;
            let (bytes, max) = (area.bytes(), self.limits.area_bytes);
            if bytes > max {
                return Err(StateError::Full { area: name, bytes, max });
            }
            root.areas.insert(name, area);
        }
        root.meta = next.meta.unwrap_or(root.meta);
        draft.replaced.extend_from_slice(std::mem::take(&mut root.outbox).pages_mut());
        if let Some((request, answer)) = next.answer {
            let bytes = answer.len() as u64;
            root.answers.push(Kept::new(request, draft.add(answer), bytes));
            self.forget_answers(&mut root.answers, &mut draft.replaced);
        }
        root.replaced = std::mem::take(&mut draft.replaced);
        root.outbox = match <[Vec<u8>; 1]>::try_from(next.outbox) {
            Ok([piece]) if Self::has_room(&root, &piece) => Outbox::Here(piece),
            Ok([piece]) => Outbox::Pages(vec![draft.add(piece)]),
            Err(pieces) => Outbox::Pages(pieces.into_iter().map(|piece| draft.add(piece)).collect()),
        };
        root.taken = draft.pages.len() as u64 + 1;
        self.check_size(&root, &draft.pages)?;
        // What is refused has not taken a number.
        let (reclaimed, written) = join(self.reclaim(before), self.write(&mut root, draft.pages)).await;
        // Once this has happened, nobody knows any more what was to be deleted before it.
        reclaimed?;
        let mut keys = written?;
        let head = Head { number: root.id, root: encode(&root) };
        if self.bucket.swap(&self.head_key(), before.id, &head).await? || self.is_committed(root.id).await? {
            return Ok(root);
        }
        keys.push(self.page_key(Page(root.id)));
        let _ = delete_all(self.bucket, &keys).await;
        Err(StateError::Conflict)
    }

    /// Whether an outbox goes with the root: then it needs no page, which is written, read and deleted.
    fn has_room(root: &Root<M>, outbox: &[u8]) -> bool {
        let head = HEAD_BYTES + encode(root).len() + outbox.len() + ROOM_BYTES;
        outbox.len() <= OUTBOX_HERE_BYTES_MAX && head as u64 <= B::VALUE_BYTES_MAX
    }

    /// Refuses what the store does not take in one piece.
    fn check_size(&self, root: &Root<M>, pages: &[Vec<u8>]) -> Result<(), StateError> {
        let head = HEAD_BYTES + encode(root).len();
        let largest = pages.iter().map(Vec::len).chain([head]).max().unwrap_or_default() as u64;
        let max = B::VALUE_BYTES_MAX;
        if largest > max { Err(StateError::Full { area: self.prefix.clone(), bytes: largest, max }) } else { Ok(()) }
    }

    /// Takes numbers for the pages of an attempt and for itself, by which they are found if this is killed, and writes the
    /// pages; their keys.
    async fn write(&self, root: &mut Root<M>, pages: Vec<Vec<u8>>) -> Result<Vec<String>, StateError> {
        let corrupt = || StateError::Corrupt(self.attempts_key());
        let taken = i64::try_from(root.taken).map_err(|_| corrupt())?;
        let last = self.bucket.increment(&self.attempts_key(), taken).await?;
        // Numbers that are given out once more would be those of pages that are needed.
        let is_new = |last: &u64| last.checked_sub(root.taken).is_some_and(|before| before >= root.previous);
        let last = u64::try_from(last).ok().filter(is_new).ok_or_else(corrupt)?;
        root.take_numbers(last);
        let pages = (root.first()..).zip(pages).map(|(number, bytes)| (self.page_key(Page(number)), bytes));
        let pages: Vec<(String, Vec<u8>)> = pages.collect();
        set_all(self.bucket, &pages).await?;
        Ok(pages.into_iter().map(|(key, _)| key).collect())
    }

    /// Whether an attempt has become a commit although its swap was refused: a client that asks again after an answer was
    /// lost is beaten by itself.
    async fn is_committed(&self, id: u64) -> Result<bool, StateError> {
        let last = self.begin().await?;
        // Numbers rise from commit to commit.
        if last.id <= id {
            return Ok(last.id == id);
        }
        if last.before.contains(&id) {
            return Ok(true);
        }
        if last.before.len() < BEFORE_MAX || last.before.first().is_some_and(|oldest| *oldest < id) {
            return Ok(false);
        }
        Err(StateError::Store("many have committed since; this commit may have happened".to_owned()))
    }

    /// Deletes what nobody needs any more since `last` was committed.
    async fn reclaim(&self, last: &Root<M>) -> Result<(), StateError> {
        // None of the attempts that took these can commit any more: they began from a root that is not the last.
        let lost = (last.previous + 1).max(last.first().saturating_sub(LOST_PAGES_MAX))..last.first();
        let pages = last.replaced.iter().copied().chain(lost.map(Page));
        let keys: Vec<String> = pages.map(|page| self.page_key(page)).collect();
        delete_all(self.bucket, &keys).await
    }

    /// The area with these changes.
    async fn change(&self, before: u64, area: Area, changes: Changes, draft: &mut Draft) -> Result<Area, StateError> {
        let Changes { area: _, entries, looked, watermark, called } = changes;
        let watermark = area.watermark.max(watermark);
        let changed: BTreeSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
        let edits = edits(entries);
        let of_edits = edits.keys().map(|place| area.leaf_of(place));
        let touched: BTreeSet<usize> = of_edits.chain(area.leaves_due(looked)).collect();
        let on_disk = touched.iter().copied().filter(|at| *at < area.leaves.len()).collect();
        let mut found = self.read(before, &area, on_disk).await?;
        let mut leaves = Vec::with_capacity(area.leaves.len());
        for at in 0..area.leaves.len().max(1) {
            let old = area.leaves.get(at);
            let is_over = old.is_some_and(|leaf| leaf.over.is_some_and(|end| end <= watermark));
            if !touched.contains(&at) && !is_over {
                leaves.extend(old.cloned());
                continue;
            }
            draft.replaced.extend(old.map(|leaf| leaf.page));
            let records = found.remove(&at).unwrap_or_default();
            let mut records: BTreeMap<Place, Record> =
                records.into_iter().map(|record| (record.place.clone(), record)).collect();
            for (place, edit) in area.edits_of(at, &edits) {
                match edit {
                    Some(record) => records.insert(place.clone(), record.clone()),
                    None => records.remove(place),
                };
            }
            let is_needed = |record: &Record| match (record.place.slot, record.time) {
                (Slot::Timer, time) => time > Some(looked) || changed.contains(&record.place.key),
                (Slot::Part(_), end) => end.is_none_or(|end| end > watermark),
            };
            let records = records.into_values().filter(is_needed).collect();
            for records in tree::cut(records) {
                let page = draft.add(encode(&records));
                leaves.extend(tree::leaf(&records, page));
            }
        }
        Ok(Area { watermark, called: area.called.max(called), leaves })
    }

    /// Keeps no more answers than there is room for, but the last one in any case.
    fn forget_answers(&self, answers: &mut Vec<Kept>, replaced: &mut Vec<Page>) {
        let has_room = |answers: &[Kept]| {
            let bytes: u64 = answers.iter().map(Kept::bytes).sum();
            answers.len() <= self.limits.answers.max(1) && bytes <= self.limits.answers_bytes
        };
        while answers.len() > 1 && !has_room(answers) {
            replaced.push(answers.remove(0).page());
        }
    }
}

impl<M> Root<M> {
    /// The first number that its attempt took.
    const fn first(&self) -> u64 {
        self.id + 1 - self.taken
    }

    /// Gives the attempt its numbers, of which this is the last.
    fn take_numbers(&mut self, last: u64) {
        self.id = last;
        let first = self.first();
        let leaves = self.areas.values_mut().flat_map(|area| &mut area.leaves).map(|leaf| &mut leaf.page);
        let pages = leaves.chain(self.answers.iter_mut().map(Kept::page_mut)).chain(self.outbox.pages_mut());
        pages.filter(|page| page.0 >= UNNUMBERED).for_each(|page| page.0 = first + (page.0 - UNNUMBERED));
    }
}

fn changes_anything<M: Meta>(before: &Root<M>, next: &Next<'_, M>) -> bool {
    let is_known = |changes: &Changes| {
        let area = before.areas.get(&changes.area);
        area.map_or(changes.watermark == i64::MIN && changes.called == 0, |area| {
            changes.watermark <= area.watermark && changes.called < area.called + CALLED_SECONDS
        })
    };
    next.answer.is_some()
        || !next.outbox.is_empty()
        || next.forgotten.is_some()
        || next.meta.as_ref().is_some_and(|meta| *meta != before.meta)
        || next.changes.iter().any(|changes| !changes.entries.is_empty() || !is_known(changes))
}

fn edits(entries: Vec<Entry>) -> Edits {
    let mut edits = Edits::new();
    let mut timers: BTreeMap<String, Option<i64>> = BTreeMap::new();
    for entry in entries {
        let timer = timers.entry(entry.key.clone()).or_default();
        *timer = timer.iter().copied().chain(entry.wake_at).min();
        let place = Place { key: entry.key, slot: Slot::Part(entry.part) };
        let (version, time) = (entry.version, entry.expires_at);
        let record = entry.value.map(|value| Record { place: place.clone(), version, value, time });
        edits.insert(place, record);
    }
    for (key, time) in timers {
        let place = Place { key, slot: Slot::Timer };
        let record = time.map(|_| Record { place: place.clone(), version: 0, value: Vec::new(), time });
        edits.insert(place, record);
    }
    edits
}
