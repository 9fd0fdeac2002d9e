//! Roots, areas, leaves, records: what is where.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use super::answers::Kept;

/// Bytes of a leaf, unless one record has more. A leaf is written anew when one of its records changes, and named by each
/// root: this is between the two.
const LEAF_BYTES: usize = 32 << 10;
/// What a record takes besides its key and value.
const RECORD_BYTES: usize = 32;

/// What was committed, without the entries themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Root<M> {
    /// The last number that its attempt took; 0 before the first.
    pub(super) id: u64,
    /// The root that it began from.
    pub(super) previous: u64,
    /// The commits before it, the oldest first; no more than tell one from an attempt that was too late.
    pub(super) before: Vec<u64>,
    /// How many numbers its attempt took: one for each page that it wrote, and its own.
    pub(super) taken: u64,
    /// Pages of the roots before that are none of its own.
    pub(super) replaced: Vec<Page>,
    /// What was committed along with the state.
    pub meta: M,
    /// By name.
    pub areas: BTreeMap<String, Area>,
    /// Answers for those who ask again, the oldest first.
    pub(super) answers: Vec<Kept>,
    /// What is to be sent now that this is committed.
    pub(super) outbox: Outbox,
}

impl<M: Default> Default for Root<M> {
    fn default() -> Self {
        Self {
            id: 0,
            previous: 0,
            before: Vec::new(),
            taken: 0,
            replaced: Vec::new(),
            meta: M::default(),
            areas: BTreeMap::new(),
            answers: Vec::new(),
            outbox: Outbox::default(),
        }
    }
}

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Outbox {
    /// Its pieces, each in a page.
    Pages(Vec<Page>),
    /// All of it.
    Here(Vec<u8>),
}

impl Default for Outbox {
    fn default() -> Self {
        Self::Pages(Vec::new())
    }
}

impl Outbox {
    pub(super) fn pages_mut(&mut self) -> &mut [Page] {
        match self {
            Self::Pages(pages) => pages,
            Self::Here(_) => &mut [],
        }
    }
}

/// Whether there is room for an area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// It is there already, or there is.
    Free,
    /// There is if this one is forgotten.
    InPlaceOf(String),
    /// There is not.
    None,
}

impl<M> Root<M> {
    /// Whether there is anything to be sent now that it is committed.
    pub const fn has_outbox(&self) -> bool {
        !matches!(&self.outbox, Outbox::Pages(pages) if pages.is_empty())
    }

    /// Its number; 0 before the first.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Whether an area of this name has room among so many. One that was called at `idle_since` for the last time, or
    /// before it, may be forgotten.
    pub(super) fn room_for(&self, name: &str, areas_max: usize, idle_since: u64) -> Room {
        if self.areas.contains_key(name) || self.areas.len() < areas_max {
            return Room::Free;
        }
        let oldest = self.areas.iter().min_by_key(|(_, area)| area.called);
        let idle = oldest.filter(|(_, area)| area.called <= idle_since);
        idle.map_or(Room::None, |(name, _)| Room::InPlaceOf(name.clone()))
    }
}

/// The state of one stage, or of one session with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Area {
    /// The newest watermark that the stage has been told; `i64::MIN` for none.
    pub watermark: i64,
    /// When it was called last, seconds since the epoch, to a minute.
    pub called: u64,
    /// In the order of what they hold.
    pub(super) leaves: Vec<Leaf>,
}

impl Default for Area {
    fn default() -> Self {
        Self { watermark: i64::MIN, called: 0, leaves: Vec::new() }
    }
}

/// A page by number, which no other page of its scope ever has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Page(pub(super) u64);

/// Where a leaf is, and what is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Leaf {
    /// Nothing before this is in it, unless it is the first of all.
    pub(super) first: Place,
    pub(super) page: Page,
    pub(super) bytes: u32,
    /// The first timer.
    pub(super) due: Option<i64>,
    /// When all of it is over; none if something in it never is.
    pub(super) over: Option<i64>,
}

/// Where a record belongs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) key: String,
    pub(super) slot: Slot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Slot {
    Timer,
    Part(u64),
}

/// An entry, or the timer of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) place: Place,
    pub(super) version: u32,
    pub(super) value: Vec<u8>,
    /// The timer, or when the entry expires.
    pub(super) time: Option<i64>,
}

/// The records of leaves, by their place in an area.
pub(super) type Leaves = BTreeMap<usize, Vec<Record>>;
/// New records, and nothing where one is deleted.
pub(super) type Edits = BTreeMap<Place, Option<Record>>;

impl Record {
    pub(super) fn is_timer(&self) -> bool {
        self.place.slot == Slot::Timer
    }

    fn bytes(&self) -> usize {
        self.place.key.len() + self.value.len() + RECORD_BYTES
    }
}

impl Area {
    /// Bytes of its entries.
    pub fn bytes(&self) -> u64 {
        self.leaves.iter().map(|leaf| u64::from(leaf.bytes)).sum()
    }

    /// The leaf that a record belongs in.
    pub(super) fn leaf_of(&self, place: &Place) -> usize {
        self.leaves.partition_point(|leaf| leaf.first <= *place).saturating_sub(1)
    }

    /// The leaves that hold records of a key.
    pub(super) fn leaves_of(&self, key: &str) -> std::ops::Range<usize> {
        let first = self.leaf_of(&Place { key: key.to_owned(), slot: Slot::Timer });
        let end = self.leaves.partition_point(|leaf| *leaf.first.key <= *key);
        first..end.max(first + 1).min(self.leaves.len())
    }

    /// The leaves with timers that come with a mark.
    pub(super) fn leaves_due(&self, mark: i64) -> impl Iterator<Item = usize> {
        let is_due = move |leaf: &Leaf| leaf.due.is_some_and(|time| time <= mark);
        self.leaves.iter().enumerate().filter(move |(_, leaf)| is_due(leaf)).map(|(at, _)| at)
    }

    /// The edits that belong into a leaf.
    pub(super) fn edits_of<'e>(
        &self,
        at: usize,
        edits: &'e Edits,
    ) -> impl Iterator<Item = (&'e Place, &'e Option<Record>)> {
        let first =
            self.leaves.get(at).filter(|_| at > 0).map_or(Bound::Unbounded, |leaf| Bound::Included(&leaf.first));
        let end = self.leaves.get(at + 1).map_or(Bound::Unbounded, |leaf| Bound::Excluded(&leaf.first));
        edits.range::<Place, _>((first, end))
    }
}

/// Cuts records, in order, into leaves of about the same size, each of them as small as a leaf is to be.
pub(super) fn cut(records: Vec<Record>) -> Vec<Vec<Record>> {
    let total: usize = records.iter().map(Record::bytes).sum();
    let target = total.checked_div(total.div_ceil(LEAF_BYTES)).unwrap_or_default();
    let mut leaves: Vec<Vec<Record>> = Vec::new();
    let mut filled = usize::MAX;
    for record in records {
        let bytes = record.bytes();
        match leaves.last_mut() {
            Some(leaf) if filled < target => leaf.push(record),
            _ => {
                leaves.push(vec![record]);
                filled = 0;
            }
        }
        filled += bytes;
    }
    leaves
}

/// What a root says of a leaf with these records; nothing of one without any.
pub(super) fn leaf(records: &[Record], page: Page) -> Option<Leaf> {
    let timers = || records.iter().filter(|record| record.is_timer());
    let ends: Option<BTreeSet<i64>> = records.iter().map(|record| record.time).collect();
    let bytes: usize = records.iter().map(Record::bytes).sum();
    Some(Leaf {
        first: records.first()?.place.clone(),
        page,
        bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        due: timers().filter_map(|record| record.time).min(),
        over: ends.filter(|_| timers().next().is_none()).and_then(|ends| ends.last().copied()),
    })
}
