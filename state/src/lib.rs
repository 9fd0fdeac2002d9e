//! State in a key-value store that has no transactions, changed by commits that happen or do not.
//!
//! What is committed together is a [`Scope`]: the stages of a pipeline, or the sessions with a stage. Its state is a tree of
//! two levels (`tree.rs`): a root, and leaves that hold the entries of neighbouring keys. Leaves are pages, which are never
//! changed. A commit writes new ones under numbers that no other attempt has, and then puts its root into the scope's
//! **head**, in the place of the one that it began from, by compare-and-swap of the number that each head has: that is the
//! one moment at which it happens. Before it nobody sees anything, after it nothing is left to do. Of several that begin
//! from one root, one commits; the others begin again.
//!
//! Pages that nobody needs are deleted by the next commit, and so are those of an attempt that was killed: it took a number
//! for each before it wrote one, so that they are known without having been noted anywhere. A reader that is two commits
//! late finds a page missing, and begins again.

mod answers;
mod bucket;
mod commit;
mod sessions;
#[cfg(any(test, feature = "testsuite"))]
pub mod testsuite;
mod tree;

use std::{collections::BTreeSet, marker::PhantomData};

use serde::{Serialize, de::DeserializeOwned};
use tapeline_invoke::contract::Entry;

pub use answers::{ANSWERS_BYTES_MAX, Known, Request};
pub use bucket::{Bucket, Head, StateError, page_beside};
pub use commit::{Changes, Next};
pub use sessions::{Session, SessionError};
pub use tree::{Area, Root};

use bucket::{decode, get_all};
use tree::{Outbox, Page, Record, Slot};

/// Bytes that a piece of an outbox may have, of which nothing is known.
const OUTBOX_BYTES: u64 = 512 << 10;

/// What a scope may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of an area's entries. It is the limit of what a commit may change, too: any mark may wake every key.
    pub area_bytes: u64,
    /// Answers that are kept for those who ask again.
    pub answers: usize,
    /// Bytes of these answers.
    pub answers_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { area_bytes: 64 << 20, answers: 64, answers_bytes: ANSWERS_BYTES_MAX }
    }
}

/// What is committed along with the state: how far its input has come, say.
pub trait Meta: Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync {}

impl<M: Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync> Meta for M {}

/// State that is committed together, with an `M`.
pub struct Scope<'a, B, M> {
    bucket: &'a B,
    prefix: String,
    limits: Limits,
    meta: PhantomData<fn() -> M>,
}

impl<'a, B: Bucket, M: Meta> Scope<'a, B, M> {
    /// The state of a pipeline; an area is a stage.
    pub fn of_pipeline(bucket: &'a B, name: &str) -> Self {
        Self::named(bucket, &format!("tapeline/pipeline/{}", encode_name(name)))
    }

    /// The part of a pipeline that one worker does: of a partition, from a stage on to the next hop.
    pub fn of_segment(bucket: &'a B, pipeline: &str, first_stage: &str, partition: u32) -> Self {
        let (pipeline, stage) = (encode_name(pipeline), encode_name(first_stage));
        Self::named(bucket, &format!("tapeline/segment/{pipeline}/{stage}/partition-{partition}"))
    }

    /// The scope of this name.
    pub fn named(bucket: &'a B, name: &str) -> Self {
        Self { bucket, prefix: name.to_owned(), limits: Limits::default(), meta: PhantomData }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Its name: what all its keys begin with.
    pub fn name(&self) -> &str {
        &self.prefix
    }

    /// What was committed last. All work begins here.
    ///
    /// # Errors
    /// See [`StateError`].
    pub async fn begin(&self) -> Result<Root<M>, StateError> {
        let key = self.head_key();
        let Some(head) = self.bucket.head(&key).await? else { return Ok(Root::default()) };
        let root: Root<M> = decode(&key, &head.root)?;
        if root.id == head.number { Ok(root) } else { Err(StateError::Corrupt(key)) }
    }

    /// The entries that an area of this root has for these keys, and for those whose timer comes with `mark`.
    ///
    /// # Errors
    /// `Conflict` when others have committed since, so that not all of it is there any more.
    pub async fn load(&self, root: u64, area: &Area, keys: Vec<String>, mark: i64) -> Result<Vec<Entry>, StateError> {
        let mut wanted: BTreeSet<String> = keys.into_iter().collect();
        let of_keys = wanted.iter().flat_map(|key| area.leaves_of(key));
        let first: BTreeSet<usize> = area.leaves_due(mark).chain(of_keys).collect();
        let mut leaves = self.read(root, area, first.into_iter().collect()).await?;
        let timers = leaves.values().flatten().filter(|record| record.is_timer() && record.time <= Some(mark));
        wanted.extend(timers.map(|record| record.place.key.clone()));
        let others: BTreeSet<usize> = wanted.iter().flat_map(|key| area.leaves_of(key)).collect();
        // Those of the keys that timers have woken.
        let others = others.into_iter().filter(|at| !leaves.contains_key(at)).collect();
        leaves.append(&mut self.read(root, area, others).await?);
        let records = leaves.into_values().flatten().filter(|record| wanted.contains(&record.place.key));
        Ok(entries(records, area.watermark))
    }

    /// All entries that an area of this root has, by key and part.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub async fn load_all(&self, root: u64, area: &Area) -> Result<Vec<Entry>, StateError> {
        let leaves = self.read(root, area, (0..area.leaves.len()).collect()).await?;
        Ok(entries(leaves.into_values().flatten(), area.watermark))
    }

    /// What is to be sent now that this root is committed, in pieces.
    ///
    /// # Errors
    /// `Conflict` when others have committed since: then it was sent.
    pub async fn outbox(&self, root: &Root<M>) -> Result<Vec<Vec<u8>>, StateError> {
        let pages = match &root.outbox {
            Outbox::Here(outbox) => return Ok(vec![outbox.clone()]),
            Outbox::Pages(pages) => pages,
        };
        let keys = pages.iter().map(|page| (self.page_key(*page), OUTBOX_BYTES)).collect();
        let mut pieces = Vec::with_capacity(pages.len());
        for (key, piece) in get_all(self.bucket, keys).await? {
            match piece {
                Some(piece) => pieces.push(piece),
                None => return Err(self.missing(root.id, key).await),
            }
        }
        Ok(pieces)
    }

    /// The records of some leaves, by their place in the area.
    async fn read(&self, root: u64, area: &Area, which: Vec<usize>) -> Result<tree::Leaves, StateError> {
        let pages: Vec<_> = which.iter().filter_map(|at| area.leaves.get(*at)).collect();
        let keys = pages.iter().map(|leaf| (self.page_key(leaf.page), u64::from(leaf.bytes))).collect();
        let found = get_all(self.bucket, keys).await?;
        let mut leaves = tree::Leaves::new();
        for (at, (key, bytes)) in which.into_iter().zip(found) {
            match bytes {
                Some(bytes) => leaves.insert(at, decode(&key, &bytes)?),
                None => return Err(self.missing(root, key).await),
            };
        }
        Ok(leaves)
    }

    /// What it means that a page of a root is not there: others have committed since, or somebody has deleted it.
    async fn missing(&self, root: u64, key: String) -> StateError {
        match self.bucket.head(&self.head_key()).await {
            Ok(Some(head)) if head.number == root => StateError::Corrupt(key),
            Ok(_) => StateError::Conflict,
            Err(error) => error,
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.bucket.get_many(&[key.to_owned()]).await?.pop().flatten())
    }

    fn head_key(&self) -> String {
        format!("{}/head", self.prefix)
    }

    fn attempts_key(&self) -> String {
        format!("{}/attempts", self.prefix)
    }

    fn page_key(&self, page: Page) -> String {
        page_beside(&self.head_key(), page.0)
    }
}

/// The entries that these records are, in their order, without those that have expired by a watermark.
fn entries(records: impl Iterator<Item = Record>, watermark: i64) -> Vec<Entry> {
    let (mut entries, mut timer) = (Vec::new(), None);
    for Record { place, version, value, time } in records {
        match place.slot {
            // It is in front of its key's parts.
            Slot::Timer => timer = Some((place.key, time)),
            Slot::Part(_) if time.is_some_and(|end| end <= watermark) => {}
            Slot::Part(part) => {
                let wake_at = timer.as_ref().filter(|(key, _)| *key == place.key).and_then(|(_, time)| *time);
                entries.push(Entry { key: place.key, part, version, value: Some(value), wake_at, expires_at: time });
            }
        }
    }
    entries
}

/// Whether a key is that of a page, whose value is never changed.
pub fn is_page(key: &str) -> bool {
    key.rsplit('/').next().is_some_and(|index| !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A name that may hold anything, so that it has no slash in it.
fn encode_name(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect()
}

#[cfg(test)]
mod tests;
