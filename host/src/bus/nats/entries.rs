//! State entries in memory, of which a copy costs nothing: a version that is prepared beside the work reads one.

use std::{collections::BTreeMap, sync::Arc};

use crate::contract::Entry;

/// Stage, key and part.
type Key = (String, String, u64);

/// State entries by stage, key and part.
///
/// A copy shares the entries that there are. As long as it lives, changes go beside them, and are put among them with the
/// first change after that.
#[derive(Clone, Default)]
pub(super) struct Entries {
    shared: Arc<BTreeMap<Key, Entry>>,
    /// Entries that have changed since, also to none.
    beside: BTreeMap<Key, Entry>,
}

impl Entries {
    /// Changes an entry, or removes it when it has no value.
    pub(super) fn apply(&mut self, stage: String, entry: Entry) {
        let key = (stage, entry.key.clone(), entry.part);
        match Arc::get_mut(&mut self.shared) {
            None => {
                self.beside.insert(key, entry);
            }
            Some(entries) => {
                for (key, entry) in std::mem::take(&mut self.beside) {
                    put(entries, key, entry);
                }
                put(entries, key, entry);
            }
        }
    }

    /// The entries with their stages, by stage, key and part.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Entry)> {
        let mut beside = self.beside.iter().peekable();
        let mut shared = self.shared.iter().peekable();
        let next = move || loop {
            let (key, entry) = match (shared.peek(), beside.peek()) {
                (Some((old, _)), Some((new, _))) if old < new => shared.next()?,
                (Some((old, _)), Some((new, _))) => {
                    if old == new {
                        shared.next();
                    }
                    beside.next()?
                }
                (Some(_), None) => shared.next()?,
                (None, _) => beside.next()?,
            };
            if entry.value.is_some() {
                return Some((&key.0, entry));
            }
        };
        std::iter::from_fn(next)
    }
}

fn put(entries: &mut BTreeMap<Key, Entry>, key: Key, entry: Entry) {
    if entry.value.is_some() {
        entries.insert(key, entry);
    } else {
        entries.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(key: u8, value: Option<u8>) -> Entry {
        let value = value.map(|value| vec![value]);
        Entry { key: key.to_string(), part: 0, version: 1, value, wake_at: None, expires_at: None }
    }

    fn all(entries: &Entries) -> Vec<(String, Entry)> {
        entries.iter().map(|(stage, entry)| (stage.clone(), entry.clone())).collect()
    }

    proptest! {
        #[test]
        fn copies_stay_as_they_are_and_nothing_is_missed(
            changes in prop::collection::vec((0_u8..6, prop::option::of(any::<u8>()), any::<bool>(), any::<bool>()), 0..60)
        ) {
            let (mut entries, mut plain) = (Entries::default(), BTreeMap::new());
            let mut copies: Vec<(Entries, Vec<(String, Entry)>)> = Vec::new();
            for (key, value, copies_now, drops_now) in changes {
                let changed = entry(key, value);
                put(&mut plain, ("s".to_owned(), changed.key.clone(), 0), changed.clone());
                entries.apply("s".to_owned(), changed);
                let expected: Vec<_> = plain.iter().map(|((stage, ..), entry)| (stage.clone(), entry.clone())).collect();
                prop_assert_eq!(all(&entries), expected.clone());
                if copies_now {
                    copies.push((entries.clone(), expected));
                }
                for (copy, then) in &copies {
                    prop_assert_eq!(&all(copy), then);
                }
                if drops_now {
                    copies.clear();
                }
            }
        }
    }
}
