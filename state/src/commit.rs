//! Commits.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tapeline_invoke::contract::Entry;

use super::{
    Meta, READS_MAX, Request, Scope,
    answers::Kept,
    bucket::{Bucket, StateError, decode, delete_all, encode, get_all, set_all},
    tree::{self, Area, Edits, Page, Place, Record, Root, Slot},
};

/// Attempts between two commits whose pages are looked for, the last ones. Those that were too slow delete their own, so
/// that only those of killed ones are found; not of one that has written after that commit, and is killed before its swap.
const ATTEMPTS_MAX: u64 = 256;
/// Bytes that a root may have of which nothing is known.
const ROOT_BYTES: u64 = 512 << 10;
/// Bytes by which a root may grow for each page while it gets its number: that, twice, and the page that is replaced.
const ROOT_BYTES_ADDED: usize = 48;
/// Commits that a root knows to have been before it: of so many an attempt can tell whether it was one of them.
const BEFORE_MAX: usize = 64;
/// The number of an attempt that has none yet.
const UNNUMBERED: u64 = 0;
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
        self.pages.push(bytes);
        // Pages of at least a record each, of changes that have a limit.
        Page { attempt: UNNUMBERED, index: u32::try_from(self.pages.len()).unwrap_or(u32::MAX) }
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
        let mut root = Root { previous: before.id, ..before.clone() };
        root.before.push(before.id);
        let forgotten = root.before.len().saturating_sub(BEFORE_MAX);
        root.before.drain(..forgotten);
        if before.id > 0 {
            draft.replaced.push(Page::root(before.id));
        }
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
        draft.replaced.append(&mut root.outbox);
        root.outbox.extend(next.outbox.into_iter().map(|piece| draft.add(piece)));
        if let Some((request, answer)) = next.answer {
            let bytes = answer.len() as u64;
            root.answers.push(Kept::new(request, draft.add(answer), bytes));
            self.forget_answers(&mut root.answers, &mut draft.replaced);
        }
        self.check_size(&root, &draft.pages)?;
        // What is refused has not taken a number.
        self.reclaim(before).await?;
        let id = self.bucket.increment(&self.attempts_key(), 1).await?;
        root.take_number(u64::try_from(id).map_err(|_| StateError::Corrupt(self.attempts_key()))?);
        root.pages = u32::try_from(draft.pages.len()).unwrap_or(u32::MAX);
        root.replaced = draft.replaced;
        self.write(before, &root, draft.pages).await?;
        Ok(root)
    }

    /// Refuses what the store does not take in one piece.
    fn check_size(&self, root: &Root<M>, pages: &[Vec<u8>]) -> Result<(), StateError> {
        // The root is written with numbers in it that it has not got yet, and with what is replaced.
        let root_bytes = encode(root).len() + ROOT_BYTES_ADDED * (pages.len() + root.areas.len() + 1);
        let largest = pages.iter().map(Vec::len).chain([root_bytes]).max().unwrap_or_default() as u64;
        let max = B::VALUE_BYTES_MAX;
        if largest > max { Err(StateError::Full { area: self.prefix.clone(), bytes: largest, max }) } else { Ok(()) }
    }

    /// Writes the pages of an attempt, and lets the head name it.
    async fn write(&self, before: &Root<M>, root: &Root<M>, pages: Vec<Vec<u8>>) -> Result<(), StateError> {
        // The root comes first: by it, the other pages are found if this is killed.
        let all = std::iter::once(encode(root)).chain(pages);
        let page = |(index, bytes)| (self.page_key(Page { attempt: root.id, index }), bytes);
        let all: Vec<(String, Vec<u8>)> = (0..).zip(all).map(page).collect();
        let (first, others) = all.split_at(1);
        set_all(self.bucket, first).await?;
        set_all(self.bucket, others).await?;
        if self.swap_head(before.id, root.id).await? || self.is_committed(root.id).await? {
            return Ok(());
        }
        // The root last: what is left is found by it.
        let mut keys: Vec<String> = all.into_iter().map(|(key, _)| key).collect();
        let others = keys.split_off(1);
        if delete_all(self.bucket, &others).await.is_ok() {
            let _ = delete_all(self.bucket, &keys).await;
        }
        Err(StateError::Conflict)
    }

    async fn swap_head(&self, before: u64, id: u64) -> Result<bool, StateError> {
        let key = self.head_key();
        // A head that nobody has swapped yet is whatever the store makes of a new number.
        let expected = match before {
            0 => self.get(&key).await?.filter(|head| head_of(head) == Some(0)),
            before => Some(before.to_le_bytes().to_vec()),
        };
        let Some(expected) = expected else { return Ok(false) };
        self.bucket.swap(&key, &expected, &id.to_le_bytes()).await
    }

    /// Whether an attempt has become a commit although its swap was refused: a client that asks again after an answer was
    /// lost is beaten by itself.
    async fn is_committed(&self, id: u64) -> Result<bool, StateError> {
        for _ in 0..READS_MAX {
            let head = self.get(&self.head_key()).await?.as_deref().and_then(head_of).unwrap_or_default();
            // Numbers rise from commit to commit.
            if head <= id {
                return Ok(head == id);
            }
            let key = self.page_key(Page::root(head));
            // One that is missing is no longer the last.
            let Some(root) = self.get(&key).await? else { continue };
            let root = decode::<Root<M>>(&key, &root)?;
            if root.before.contains(&id) {
                return Ok(true);
            }
            if root.before.len() < BEFORE_MAX || root.before.first().is_some_and(|oldest| *oldest < id) {
                return Ok(false);
            }
            break;
        }
        Err(StateError::Store("many have committed since; this commit may have happened".to_owned()))
    }

    /// Deletes what nobody needs any more since `last` was committed.
    async fn reclaim(&self, last: &Root<M>) -> Result<(), StateError> {
        let mut keys: Vec<String> = last.replaced.iter().map(|page| self.page_key(*page)).collect();
        let mut attempts = Vec::new();
        // None of these can commit any more: they began from a root that is not the last.
        let others = last.id.saturating_sub(ATTEMPTS_MAX).max(last.previous) + 1..last.id;
        let roots = others.map(|id| (self.page_key(Page::root(id)), ROOT_BYTES)).collect();
        for (key, bytes) in get_all(self.bucket, roots).await? {
            // What cannot be read is in nobody's way.
            let Some(Ok(Root::<M> { id, pages, .. })) = bytes.map(|bytes| decode(&key, &bytes)) else { continue };
            keys.extend((1..=pages).map(|index| self.page_key(Page { attempt: id, index })));
            attempts.push(key);
        }
        delete_all(self.bucket, &keys).await?;
        // Their roots last: by them, the pages are found if this is killed.
        delete_all(self.bucket, &attempts).await
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
    /// Gives the attempt its number.
    fn take_number(&mut self, id: u64) {
        self.id = id;
        let leaves = self.areas.values_mut().flat_map(|area| &mut area.leaves).map(|leaf| &mut leaf.page);
        let pages = leaves.chain(self.answers.iter_mut().map(Kept::page_mut)).chain(&mut self.outbox);
        pages.filter(|page| page.attempt == UNNUMBERED).for_each(|page| page.attempt = id);
    }
}

/// The attempt that a head names; nothing for what is no head.
pub(super) fn head_of(bytes: &[u8]) -> Option<u64> {
    // A new one is what the store's `increment` makes of 0: in Redis a digit.
    if bytes == b"0" { Some(0) } else { bytes.try_into().ok().map(u64::from_le_bytes) }
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
