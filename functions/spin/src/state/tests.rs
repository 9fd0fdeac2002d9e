//! Commits happen or do not, whoever dies where, and however many begin at once.

use std::{
    cell::{Cell, RefCell},
    sync::Mutex,
};

use proptest::prelude::*;

use super::*;

/// A store in memory, whose writes fail from some point on: the process was killed there.
#[derive(Default)]
struct Memory {
    values: RefCell<BTreeMap<String, Vec<u8>>>,
    writes_left: Cell<Option<u32>>,
}

impl Bucket for Memory {
    fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StateError> {
        let values = self.values.borrow();
        Ok(keys.iter().map(|key| values.get(key).cloned()).collect())
    }

    fn swap(&self, key: &str, expected: Option<&[u8]>, value: &[u8]) -> Result<bool, StateError> {
        match self.writes_left.get() {
            Some(0) => return Err(StateError::Store("killed".to_owned())),
            left => self.writes_left.set(left.map(|left| left - 1)),
        }
        let mut values = self.values.borrow_mut();
        if values.get(key).map(Vec::as_slice) != expected {
            return Ok(false);
        }
        values.insert(key.to_owned(), value.to_vec());
        Ok(true)
    }
}

/// One for several threads.
#[derive(Default)]
struct Shared(Mutex<BTreeMap<String, Vec<u8>>>);

impl Bucket for Shared {
    fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StateError> {
        std::thread::yield_now();
        let values = self.0.lock().unwrap();
        Ok(keys.iter().map(|key| values.get(key).cloned()).collect())
    }

    fn swap(&self, key: &str, expected: Option<&[u8]>, value: &[u8]) -> Result<bool, StateError> {
        std::thread::yield_now();
        let mut values = self.0.lock().unwrap();
        if values.get(key).map(Vec::as_slice) != expected {
            return Ok(false);
        }
        values.insert(key.to_owned(), value.to_vec());
        Ok(true)
    }
}

fn entry(key: &str, part: u64, value: &[u8]) -> Entry {
    Entry { key: key.to_owned(), part, version: 1, value: Some(value.to_vec()), wake_at: None, expires_at: None }
}

/// What a stage would do: adds a letter to part 0 of a key.
fn append<B: Bucket>(scope: &Scope<'_, B>, key: &str, letter: u8) -> Result<(), StateError> {
    let before = scope.begin()?;
    let stages = ["a", "b"].map(|stage| {
        let found = scope.load(stage, &before, vec![key.to_owned()], i64::MIN)?;
        let mut value = found.into_iter().next().and_then(|entry| entry.value).unwrap_or_default();
        value.push(letter);
        Ok(Changes { stage: stage.to_owned(), entries: vec![entry(key, 0, &value)] })
    });
    let changes = stages.into_iter().collect::<Result<_, StateError>>()?;
    scope.commit(&before, &Commit { number: before.number + 1, changes, ..before.clone() })
}

fn read<B: Bucket>(scope: &Scope<'_, B>, stage: &str, key: &str) -> Vec<u8> {
    let at = scope.begin().unwrap();
    let found = scope.load(stage, &at, vec![key.to_owned()], i64::MIN).unwrap();
    found.into_iter().next().and_then(|entry| entry.value).unwrap_or_default()
}

proptest! {
    #[test]
    fn a_commit_is_whole_or_not_there(steps in prop::collection::vec(("[xyz]", prop::option::of(0_u32..9)), 1..40)) {
        let memory = Memory::default();
        let scope = Scope::of_pipeline(&memory, "p");
        let mut expected: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (number, (key, writes)) in steps.into_iter().enumerate() {
            let letter = number as u8;
            let before = {
                memory.writes_left.set(None);
                scope.begin().unwrap().number
            };
            memory.writes_left.set(writes);
            let done = append(&scope, &key, letter);
            memory.writes_left.set(None);
            let after = scope.begin().unwrap().number;
            prop_assert!(done.is_err() || after == before + 1);
            if after == before + 1 {
                expected.entry(key).or_default().push(letter);
            }
            for (key, value) in &expected {
                prop_assert_eq!(&read(&scope, "a", key), value);
                prop_assert_eq!(&read(&scope, "b", key), value);
            }
        }
    }
}

#[test]
fn of_many_at_once_each_happens_once() {
    let shared = Shared::default();
    std::thread::scope(|threads| {
        for thread in 0..4 {
            let shared = &shared;
            threads.spawn(move || {
                let scope = Scope::of_pipeline(shared, "p");
                for _ in 0..50 {
                    while let Err(error) = append(&scope, "x", thread) {
                        assert_eq!(error, StateError::Conflict);
                    }
                }
            });
        }
    });
    let scope = Scope::of_pipeline(&shared, "p");
    let (a, b) = (read(&scope, "a", "x"), read(&scope, "b", "x"));
    assert_eq!(a, b);
    let count = |thread: u8| a.iter().filter(|letter| **letter == thread).count();
    assert_eq!([0, 1, 2, 3].map(count), [50; 4]);
}

#[test]
fn timers_bring_keys_along_and_what_is_over_is_gone() {
    let memory = Memory::default();
    let scope = Scope::of_session(&memory, "aggregate", "a/b");
    let timer = Entry { wake_at: Some(50), ..entry("x", 1, b"1") };
    let ending = Entry { expires_at: Some(30), ..entry("y", 2, b"2") };
    let next = |before: &Commit, watermark: i64, entries: Vec<Entry>| Commit {
        number: before.number + 1,
        watermark,
        changes: vec![Changes { stage: "s".to_owned(), entries }],
        ..Commit::default()
    };
    let start = scope.begin().unwrap();
    scope.commit(&start, &next(&start, 10, vec![timer.clone(), ending.clone(), entry("z", 0, b"3")])).unwrap();
    let at = scope.begin().unwrap();
    assert_eq!(scope.load("s", &at, Vec::new(), 20).unwrap(), []);
    assert_eq!(scope.load("s", &at, Vec::new(), 30).unwrap(), std::slice::from_ref(&ending));
    assert_eq!(scope.load("s", &at, vec!["z".to_owned()], 60).unwrap(), [timer, ending, entry("z", 0, b"3")]);
    // The watermark passes the end of one, and the timer of the other has been looked at.
    scope.commit(&at, &next(&at, 50, vec![entry("z", 0, b"4")])).unwrap();
    let at = scope.begin().unwrap();
    assert_eq!(scope.load("s", &at, vec!["y".to_owned()], 60).unwrap(), []);
    // Who begins from a commit that is not the last is told.
    let late = scope.load("s", &start, vec!["z".to_owned()], 60);
    assert_eq!(late, Err(StateError::Conflict));
    assert_eq!(scope.commit(&start, &next(&start, 60, Vec::new())), Err(StateError::Conflict));
}

#[test]
fn a_commit_has_a_limit() {
    let memory = Memory::default();
    let scope = Scope::of_pipeline(&memory, "p");
    let start = scope.begin().unwrap();
    let changes = vec![Changes { stage: "s".to_owned(), entries: vec![entry("x", 0, &vec![0; CHANGES_BYTES_MAX])] }];
    let refused = scope.commit(&start, &Commit { number: 1, changes, ..Commit::default() });
    assert!(matches!(refused, Err(StateError::TooLarge(_))));
    assert_eq!(scope.begin().unwrap(), start);
}
