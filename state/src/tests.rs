//! Commits happen or do not, whoever dies where, and however many begin at once; and the tree holds what it was given.

use std::{collections::BTreeMap, sync::Mutex};

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::{tree::Room, *};

/// A store in memory, whose writes fail from some point on: the process was killed there.
#[derive(Default)]
struct Memory(Mutex<Values>);

#[derive(Default)]
struct Values {
    values: BTreeMap<String, Vec<u8>>,
    writes_left: Option<u32>,
    /// Swaps happen, and are said not to have.
    denies_swaps: bool,
    /// And somebody else commits at once on top of them.
    overtakes: bool,
}

impl Memory {
    fn write<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> Result<T, StateError> {
        std::thread::yield_now();
        let mut all = self.0.lock().unwrap();
        match &mut all.writes_left {
            Some(0) => return Err(StateError::Store("killed".to_owned())),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(act(&mut all.values))
    }

    fn fail_after(&self, writes: Option<u32>) {
        self.0.lock().unwrap().writes_left = writes;
    }

    fn put(&self, key: &str, value: &[u8]) {
        self.0.lock().unwrap().values.insert(key.to_owned(), value.to_vec());
    }
}

impl Bucket for Memory {
    const VALUE_BYTES_MAX: u64 = u64::MAX;

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StateError> {
        std::thread::yield_now();
        let all = self.0.lock().unwrap();
        Ok(keys.iter().map(|key| all.values.get(key).cloned()).collect())
    }

    async fn set_many(&self, pairs: &[(String, Vec<u8>)]) -> Result<(), StateError> {
        // Back ends without transactions may end in the middle.
        pairs.iter().try_for_each(|(key, value)| self.write(|values| drop(values.insert(key.clone(), value.clone()))))
    }

    async fn delete_many(&self, keys: &[String]) -> Result<(), StateError> {
        keys.iter().try_for_each(|key| self.write(|values| drop(values.remove(key))))
    }

    async fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError> {
        self.write(|values| {
            let number = |value: &Vec<u8>| i64::from_le_bytes(value.as_slice().try_into().unwrap());
            let sum = values.get(key).map_or(0, number) + delta;
            values.insert(key.to_owned(), sum.to_le_bytes().to_vec());
            sum
        })
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StateError> {
        let found = self.get_many(&[key.to_owned()]).await?.pop().flatten();
        let head = |found: Vec<u8>| Head::of_bytes(&found).ok_or_else(|| StateError::Corrupt(key.to_owned()));
        found.map(head).transpose()
    }

    async fn swap(&self, key: &str, expected: u64, head: &Head) -> Result<bool, StateError> {
        let (denies, overtakes) = {
            let all = self.0.lock().unwrap();
            (all.denies_swaps, all.overtakes)
        };
        self.write(|values| {
            let is_there = values.get(key).map_or(0, |found| Head::of_bytes(found).unwrap().number) == expected;
            if is_there {
                values.insert(key.to_owned(), head.to_bytes());
            }
            if is_there && overtakes {
                overtake(values, key);
            }
            is_there && !denies
        })
    }
}

/// Somebody commits what changes nothing but the numbers.
fn overtake(values: &mut BTreeMap<String, Vec<u8>>, key: &str) {
    let Head { number, root } = Head::of_bytes(&values[key]).unwrap();
    let mut root: Root<u64> = bucket::decode("", &root).unwrap();
    (root.id, root.previous, root.taken, root.replaced) = (number + 1, number, 1, Vec::new());
    root.before.push(number);
    values.insert(key.to_owned(), head(&root).to_bytes());
    let attempts = key.replace("/head", "/attempts");
    values.insert(attempts, (number + 1).to_le_bytes().to_vec());
}

fn head(root: &Root<u64>) -> Head {
    Head { number: root.id, root: bucket::encode(root) }
}

/// What a future gives that waits for nothing.
fn now<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().unwrap()
}

type Pipeline<'a> = Scope<'a, Memory, u64>;

fn entry(key: &str, part: u64, value: &[u8]) -> Entry {
    Entry { key: key.to_owned(), part, version: 1, value: Some(value.to_vec()), wake_at: None, expires_at: None }
}

fn changes(area: &str, watermark: i64, entries: Vec<Entry>) -> Changes {
    Changes { area: area.to_owned(), entries, looked: watermark, watermark, called: 0 }
}

fn next<M>(changes: Vec<Changes>) -> Next<'static, M> {
    Next { changes, ..Next::default() }
}

/// What a stage would do: adds a letter to part 0 of a key.
fn append(scope: &Pipeline<'_>, key: &str, letter: u8) -> Result<(), StateError> {
    let before = now(scope.begin())?;
    let both = ["a", "b"].map(|name| {
        let area = before.areas.get(name).cloned().unwrap_or_default();
        let found = now(scope.load(before.id, &area, vec![key.to_owned()], i64::MIN))?;
        let mut value = found.into_iter().next().and_then(|entry| entry.value).unwrap_or_default();
        value.push(letter);
        Ok(changes(name, i64::MIN, vec![entry(key, 0, &value)]))
    });
    now(scope.commit(&before, next(both.into_iter().collect::<Result<_, StateError>>()?))).map(drop)
}

fn read(scope: &Pipeline<'_>, area: &str, key: &str) -> Vec<u8> {
    let root = now(scope.begin()).unwrap();
    let area = root.areas.get(area).cloned().unwrap_or_default();
    let found = now(scope.load(root.id, &area, vec![key.to_owned()], i64::MIN)).unwrap();
    found.into_iter().next().and_then(|entry| entry.value).unwrap_or_default()
}

/// That nothing is stored but the last root, its pages, and what the next commit deletes.
fn check_that_nothing_is_left_over<M: Meta + std::fmt::Debug>(memory: &Memory, scope: &Scope<'_, Memory, M>) {
    let root = now(scope.begin()).unwrap();
    let leaves = root.areas.values().flat_map(|area| &area.leaves).map(|leaf| leaf.page);
    let answers = root.answers.iter().map(answers::Kept::page);
    let pages = leaves.chain(answers).chain(root.replaced.iter().copied());
    let mut known: BTreeSet<String> = pages.map(|page| scope.page_key(page)).collect();
    known.extend([scope.head_key(), scope.attempts_key()]);
    let found: BTreeSet<String> = memory.0.lock().unwrap().values.keys().cloned().collect();
    assert_eq!(found.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_commit_is_whole_or_not_there(steps in prop::collection::vec(("[xyz]", prop::option::of(0_u32..14)), 1..40)) {
        let memory = Memory::default();
        let scope = Pipeline::of_pipeline(&memory, "p");
        let mut expected: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (number, (key, writes)) in steps.into_iter().enumerate() {
            let letter = number as u8;
            let before = now(scope.begin()).unwrap().id;
            memory.fail_after(writes);
            let done = append(&scope, &key, letter);
            memory.fail_after(None);
            let has_happened = now(scope.begin()).unwrap().id != before;
            prop_assert_eq!(done.is_ok(), has_happened);
            if has_happened {
                expected.entry(key).or_default().push(letter);
            }
            for (key, value) in &expected {
                prop_assert_eq!(&read(&scope, "a", key), value);
                prop_assert_eq!(&read(&scope, "b", key), value);
            }
        }
        // The first of these commits makes what the killed ones have left known to the second.
        append(&scope, "z", 0).unwrap();
        append(&scope, "z", 0).unwrap();
        check_that_nothing_is_left_over(&memory, &scope);
    }

    #[test]
    fn the_tree_holds_what_it_was_given(steps in prop::collection::vec(step(), 1..20)) {
        let memory = Memory::default();
        let scope = Pipeline::of_pipeline(&memory, "s");
        let mut model: BTreeMap<(String, u64), Entry> = BTreeMap::new();
        let mut watermark = 0;
        for Step { entries, advance } in steps {
            watermark += advance;
            let before = now(scope.begin()).unwrap();
            now(scope.commit(&before, next(vec![changes("a", watermark, entries.clone())]))).unwrap();
            for entry in entries {
                let place = (entry.key.clone(), entry.part);
                match entry.value {
                    Some(_) => drop(model.insert(place, entry)),
                    None => drop(model.remove(&place)),
                }
            }
            model.retain(|_, entry| entry.expires_at.is_none_or(|end| end > watermark));
            let root = now(scope.begin()).unwrap();
            let area = root.areas.get("a").cloned().unwrap_or_default();
            let all: BTreeSet<String> = model.keys().map(|(key, _)| key.clone()).collect();
            let found = now(scope.load(root.id, &area, all.into_iter().collect(), i64::MIN)).unwrap();
            let expected: Vec<&Entry> = model.values().collect();
            prop_assert_eq!(found.iter().map(without_timer).collect::<Vec<_>>(), expected.into_iter().map(without_timer).collect::<Vec<_>>());
            for key in ["k0", "k5", "none"] {
                let found = now(scope.load(root.id, &area, vec![key.to_owned()], i64::MIN)).unwrap();
                prop_assert_eq!(found.len(), model.keys().filter(|(known, _)| known == key).count());
            }
            check_that_nothing_is_left_over(&memory, &scope);
        }
    }
}

/// Entries of one commit, and how far it moves the watermark.
#[derive(Clone, Debug)]
struct Step {
    entries: Vec<Entry>,
    advance: i64,
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop::option::weighted(0.8, (any::<u8>(), prop_oneof![0_usize..50, 5_000_usize..40_000]));
    let entry = (0_u8..9, 0_u64..4, value, prop::option::of(0_i64..60), prop::option::of(0_i64..60));
    let entry = entry.prop_map(|(key, part, value, wake_at, expires_at)| Entry {
        key: format!("k{key}"),
        part,
        version: 3,
        value: value.map(|(byte, length)| vec![byte; length]),
        wake_at,
        expires_at,
    });
    let entries = prop::collection::btree_map((0_u8..9, 0_u64..4), entry, 0..12);
    let entries = entries.prop_map(|entries| {
        let place = |((key, part), entry)| Entry { key: format!("k{key}"), part, ..entry };
        entries.into_iter().map(place).collect()
    });
    (entries, 0_i64..10).prop_map(|(entries, advance)| Step { entries, advance })
}

fn without_timer(entry: &Entry) -> Entry {
    Entry { wake_at: None, ..entry.clone() }
}

#[test]
fn an_outbox_is_there_until_the_next_commit() {
    let memory = Memory::default();
    let scope = Pipeline::of_pipeline(&memory, "p");
    let sent = |root: &Root<u64>| now(scope.outbox(root));
    let with = |meta, outbox: &[&[u8]]| {
        let outbox = outbox.iter().map(|piece| piece.to_vec()).collect();
        Next { meta: Some(meta), outbox, ..Next::default() }
    };
    let start = now(scope.begin()).unwrap();
    let first = now(scope.commit(&start, with(2, &[b"a", b"b"]))).unwrap();
    assert!(first.has_outbox());
    assert_eq!(now(scope.begin()).unwrap(), first, "what a commit gives is what is committed");
    assert_eq!(sent(&first).unwrap(), [b"a", b"b"]);
    let second = now(scope.commit(&first, with(3, &[]))).unwrap();
    assert!(!second.has_outbox());
    // Its pages go with the commit behind that.
    let third = now(scope.commit(&second, with(4, &[b"c"]))).unwrap();
    assert_eq!(sent(&first), Err(StateError::Conflict));
    assert_eq!(sent(&third).unwrap(), [b"c"]);
    assert_eq!((third.taken, now(scope.begin()).unwrap()), (1, third.clone()), "it needs no page");
    // One that is too large for a root has one.
    let large = vec![7; 200 << 10];
    let fourth = now(scope.commit(&third, with(5, &[&large]))).unwrap();
    assert_eq!((sent(&fourth).unwrap(), fourth.taken), (vec![large], 2));
    let fifth = now(scope.commit(&fourth, with(6, &[]))).unwrap();
    now(scope.commit(&fifth, with(7, &[]))).unwrap();
    check_that_nothing_is_left_over(&memory, &scope);
}

#[test]
fn a_store_in_memory_is_a_bucket() {
    now(testsuite::check(&Memory::default(), "here"));
}

#[test]
fn leaves_are_as_small_as_they_are_to_be() {
    let memory = Memory::default();
    let scope = Pipeline::of_pipeline(&memory, "p");
    for round in 0..20 {
        let entries = (0..50).map(|at| entry(&format!("k{:03}", (at * 7 + round * 13) % 211), round, &[7; 1_000]));
        now(scope.commit(&now(scope.begin()).unwrap(), next(vec![changes("a", 0, entries.collect())]))).unwrap();
    }
    let root = now(scope.begin()).unwrap();
    let area = &root.areas["a"];
    assert!(area.leaves.len() > 20, "{} leaves", area.leaves.len());
    assert!(area.leaves.iter().all(|leaf| leaf.bytes <= 34 << 10), "{:?}", area.leaves);
    assert!(area.leaves.is_sorted_by(|a, b| a.first < b.first));
    // A change of one key writes its leaf and the root, not all of them.
    now(scope.commit(&root, next(vec![changes("a", 0, vec![entry("k003", 0, b"1")])]))).unwrap();
    assert!(now(scope.begin()).unwrap().taken <= 3);
}

#[test]
fn of_many_at_once_each_happens_once() {
    let shared = Memory::default();
    std::thread::scope(|threads| {
        for thread in 0..4 {
            let shared = &shared;
            threads.spawn(move || {
                let scope = Pipeline::of_pipeline(shared, "p");
                for _ in 0..50 {
                    while let Err(error) = append(&scope, "x", thread) {
                        assert_eq!(error, StateError::Conflict);
                    }
                }
            });
        }
    });
    let scope = Pipeline::of_pipeline(&shared, "p");
    let (a, b) = (read(&scope, "a", "x"), read(&scope, "b", "x"));
    assert_eq!(a, b);
    let count = |thread: u8| a.iter().filter(|letter| **letter == thread).count();
    assert_eq!([0, 1, 2, 3].map(count), [50; 4]);
}

#[test]
fn timers_bring_keys_along_and_what_is_over_is_gone() {
    let memory = Memory::default();
    let scope = Pipeline::of_pipeline(&memory, "aggregate");
    let timer = Entry { wake_at: Some(50), ..entry("x", 1, b"1") };
    let ending = Entry { expires_at: Some(30), ..entry("y", 2, b"2") };
    let start = now(scope.begin()).unwrap();
    let entries = vec![timer.clone(), ending.clone(), entry("z", 0, b"3")];
    now(scope.commit(&start, next(vec![changes("s", 10, entries)]))).unwrap();
    let at = now(scope.begin()).unwrap();
    let load = |root: &Root<u64>, keys: &[&str], mark| {
        now(scope.load(root.id, &root.areas["s"], keys.iter().map(|key| (*key).to_owned()).collect(), mark)).unwrap()
    };
    assert_eq!(load(&at, &[], 49), []);
    assert_eq!(load(&at, &["y"], 49), [ending]);
    assert_eq!(load(&at, &["z"], 50), [timer.clone(), entry("z", 0, b"3")]);
    // The key with the timer was looked at and left as it was; the other has ended.
    now(scope.commit(&at, next(vec![changes("s", 50, vec![entry("z", 0, b"4")])]))).unwrap();
    let at = now(scope.begin()).unwrap();
    assert_eq!(load(&at, &["y"], 60), []);
    assert_eq!(load(&at, &["x"], 60), [Entry { wake_at: None, ..timer }]);
    assert_eq!(load(&at, &[], 60), []);
    // A change says the timer of its key anew, a deletion too.
    let deletion = Entry { value: None, wake_at: Some(55), ..entry("x", 7, b"") };
    now(scope.commit(&at, next(vec![changes("s", 50, vec![deletion])]))).unwrap();
    let at = now(scope.begin()).unwrap();
    assert_eq!(load(&at, &[], 55).len(), 1);
    now(scope.commit(&at, next(vec![changes("s", 50, vec![entry("x", 1, b"5")])]))).unwrap();
    assert_eq!(load(&now(scope.begin()).unwrap(), &[], 60), []);
    // A timer that its own change has left behind the watermark is looked at next.
    let at = now(scope.begin()).unwrap();
    let late = Entry { wake_at: Some(40), ..entry("x", 1, b"6") };
    now(scope.commit(&at, next(vec![changes("s", 50, vec![late.clone()])]))).unwrap();
    assert_eq!(load(&now(scope.begin()).unwrap(), &[], 51), [late]);
}

#[test]
fn whoever_is_late_is_told() {
    let memory = Memory::default();
    let scope = Pipeline::of_pipeline(&memory, "p");
    append(&scope, "x", 1).unwrap();
    let late = now(scope.begin()).unwrap();
    append(&scope, "x", 2).unwrap();
    // What it needs is kept for as long as one commit, so that it reads one state; two later it is told.
    assert_eq!(now(scope.load(late.id, &late.areas["a"], vec!["x".to_owned()], 0)).unwrap(), [entry("x", 0, &[1])]);
    append(&scope, "x", 3).unwrap();
    assert_eq!(now(scope.load(late.id, &late.areas["a"], vec!["x".to_owned()], 0)), Err(StateError::Conflict));
    assert_eq!(now(scope.commit(&late, next(vec![changes("a", 9, Vec::new())]))), Err(StateError::Conflict));
    assert_eq!(read(&scope, "a", "x"), [1, 2, 3]);
    append(&scope, "x", 4).unwrap();
    append(&scope, "x", 5).unwrap();
    check_that_nothing_is_left_over(&memory, &scope);
}

/// A client that asks again after an answer was lost finds the value that it has put there itself.
#[test]
fn a_swap_that_has_happened_counts_whatever_is_answered() {
    let memory = Memory::default();
    let scope = Pipeline::of_pipeline(&memory, "p");
    append(&scope, "x", 1).unwrap();
    memory.0.lock().unwrap().denies_swaps = true;
    append(&scope, "x", 2).unwrap();
    memory.0.lock().unwrap().denies_swaps = false;
    append(&scope, "x", 3).unwrap();
    assert_eq!(read(&scope, "a", "x"), [1, 2, 3]);
    check_that_nothing_is_left_over(&memory, &scope);
    // Somebody else has committed since.
    (memory.0.lock().unwrap().denies_swaps, memory.0.lock().unwrap().overtakes) = (true, true);
    append(&scope, "x", 4).unwrap();
    (memory.0.lock().unwrap().denies_swaps, memory.0.lock().unwrap().overtakes) = (false, false);
    append(&scope, "x", 5).unwrap();
    assert_eq!(read(&scope, "a", "x"), [1, 2, 3, 4, 5]);
}

/// An attempt that has written its pages when others have committed twice takes them away itself.
#[test]
fn whoever_is_too_slow_leaves_nothing() {
    let memory = Memory::default();
    let scope = Pipeline::of_pipeline(&memory, "p");
    append(&scope, "x", 1).unwrap();
    let slow = now(scope.begin()).unwrap();
    append(&scope, "x", 2).unwrap();
    append(&scope, "y", 3).unwrap();
    let late = next(vec![changes("c", i64::MIN, vec![entry("new", 0, &[0; 100_000])])]);
    assert_eq!(now(scope.commit(&slow, late)), Err(StateError::Conflict));
    check_that_nothing_is_left_over(&memory, &scope);
}

#[test]
fn a_page_that_somebody_else_has_deleted_is_named() {
    let memory = Memory::default();
    let scope = Pipeline::of_pipeline(&memory, "p");
    append(&scope, "x", 1).unwrap();
    memory.0.lock().unwrap().values.remove("tapeline/pipeline/p/1");
    let root = now(scope.begin()).unwrap();
    let missing = StateError::Corrupt("tapeline/pipeline/p/1".to_owned());
    assert_eq!(now(scope.load(root.id, &root.areas["a"], vec!["x".to_owned()], 0)), Err(missing));
}

/// One event's mark may wake every key that many requests have brought.
#[test]
fn all_that_an_area_holds_may_change_at_once() {
    let memory = Memory::default();
    let limits = Limits { area_bytes: 300_000, ..Limits::default() };
    let scope = Pipeline::of_pipeline(&memory, "p").with_limits(limits);
    for part in 0..10 {
        let with_timer = |at| Entry { wake_at: Some(60), ..entry(&format!("{part}-{at}"), 0, &[1; 200]) };
        let entries = (0..100).map(with_timer).collect();
        now(scope.commit(&now(scope.begin()).unwrap(), next(vec![changes("a", 1, entries)]))).unwrap();
    }
    let root = now(scope.begin()).unwrap();
    let woken = now(scope.load(root.id, &root.areas["a"], Vec::new(), 60)).unwrap();
    assert_eq!(woken.len(), 1_000);
    let entries = woken.into_iter().map(|entry| Entry { value: Some(vec![2; 200]), wake_at: None, ..entry }).collect();
    now(scope.commit(&root, next(vec![changes("a", 60, entries)]))).unwrap();
}

#[test]
fn what_changes_nothing_is_not_written() {
    let memory = Memory::default();
    let scope = Pipeline::of_pipeline(&memory, "p");
    now(scope.commit(&now(scope.begin()).unwrap(), next(vec![changes("a", 5, Vec::new())]))).unwrap();
    memory.fail_after(Some(0));
    let again = Next { meta: Some(0), ..next(vec![changes("a", 5, Vec::new())]) };
    now(scope.commit(&now(scope.begin()).unwrap(), again)).unwrap();
}

#[test]
fn an_area_has_a_limit() {
    let memory = Memory::default();
    let limits = Limits { area_bytes: 3_000, ..Limits::default() };
    let scope = Pipeline::of_pipeline(&memory, "s").with_limits(limits);
    let commit = |name, key: &str, bytes| {
        now(scope
            .commit(&now(scope.begin()).unwrap(), next(vec![changes(name, 0, vec![entry(key, 0, &vec![0; bytes])])])))
    };
    commit("a", "x", 1_800).unwrap();
    let full = commit("a", "y", 1_800);
    assert!(matches!(&full, Err(StateError::Full { area, max: 3_000, .. }) if area == "a"), "{full:?}");
    let attempts = now(memory.get_many(&[scope.attempts_key()]));
    assert!(commit("a", "y", 1_800).is_err() && now(memory.get_many(&[scope.attempts_key()])) == attempts);
    // Another one has its own room, and so has this one once something of it goes.
    commit("b", "y", 1_800).unwrap();
    commit("a", "x", 10).unwrap();
    commit("a", "y", 1_800).unwrap();
    // One that is forgotten is gone with all that it had.
    let root = now(scope.begin()).unwrap();
    now(scope.commit(&root, Next { forgotten: Some("a".to_owned()), ..Next::default() })).unwrap();
    assert_eq!(now(scope.begin()).unwrap().areas.keys().collect::<Vec<_>>(), ["b"]);
    commit("b", "y", 20).unwrap();
    check_that_nothing_is_left_over(&memory, &scope);
}

#[test]
fn the_area_that_was_called_longest_ago_makes_room() {
    let memory = Memory::default();
    let scope = Pipeline::of_pipeline(&memory, "s");
    for (name, called) in [("a", 200), ("b", 100), ("c", 300)] {
        let changes = Changes { called, ..changes(name, i64::MIN, Vec::new()) };
        now(scope.commit(&now(scope.begin()).unwrap(), next(vec![changes]))).unwrap();
    }
    let root = now(scope.begin()).unwrap();
    assert_eq!(root.room_for("d", 4, 0), Room::Free);
    assert_eq!(root.room_for("b", 3, 0), Room::Free);
    assert_eq!(root.room_for("d", 3, 99), Room::None);
    assert_eq!(root.room_for("d", 3, 250), Room::InPlaceOf("b".to_owned()));
    // A call is remembered to a minute, so that not each has to be written.
    let later = |called| vec![Changes { called, ..changes("b", i64::MIN, Vec::new()) }];
    now(scope.commit(&root, next(later(150)))).unwrap();
    assert_eq!(now(scope.begin()).unwrap(), root);
    now(scope.commit(&root, next(later(160)))).unwrap();
    assert_eq!(now(scope.begin()).unwrap().areas["b"].called, 160);
}

#[test]
fn an_answer_is_given_again() {
    let memory = Memory::default();
    let limits = Limits { answers: 2, answers_bytes: 100, ..Limits::default() };
    let scope = Pipeline::of_pipeline(&memory, "p").with_limits(limits);
    let request = |key: &'static str| Request { key, parameters: "", body: b"body" };
    let known = |request| now(scope.known(&now(scope.begin()).unwrap(), request)).unwrap();
    let answer = |key, bytes: usize| {
        let answer = Some((request(key), vec![1; bytes]));
        now(scope.commit(&now(scope.begin()).unwrap(), Next { answer, ..Next::default() })).unwrap();
    };
    assert_eq!(known(request("a")), Known::New);
    answer("a", 10);
    assert_eq!(known(request("a")), Known::Answered(vec![1; 10]));
    for other in [Request { body: b"other", ..request("a") }, Request { parameters: "format=x", ..request("a") }] {
        assert_eq!(known(other), Known::OtherRequest);
    }
    answer("b", 20);
    answer("c", 30);
    assert_eq!(known(request("a")), Known::New, "there is room for two");
    assert_eq!(known(request("b")), Known::Answered(vec![1; 20]));
    answer("d", 200);
    assert_eq!(known(request("c")), Known::New, "there is room for a hundred bytes");
    assert_eq!(known(request("d")), Known::Answered(vec![1; 200]), "but the last is kept in any case");
    answer("e", 5);
    check_that_nothing_is_left_over(&memory, &scope);
}

#[test]
fn what_is_none_of_ours_is_named() {
    let memory = Memory::default();
    let scope = Pipeline::of_pipeline(&memory, "p/q");
    let key = "tapeline/pipeline/p%2Fq/head";
    memory.put(key, b"what");
    assert_eq!(now(scope.begin()), Err(StateError::Corrupt(key.to_owned())));
    let told = |root: &[u8]| {
        memory.put(key, &Head { number: 7, root: root.to_vec() }.to_bytes());
        now(scope.begin()).unwrap_err().to_string()
    };
    assert!(told(b"").ends_with("p%2Fq/head: it is empty"));
    assert!(told(&[200, 1, 2]).contains("p%2Fq/head: its format is 200"));
    assert!(told(&bucket::encode(&Root::<u64> { id: 8, ..Root::default() })).ends_with(key));
    // Numbers that were taken before.
    let root = Root::<u64> { id: 8, taken: 1, ..Root::default() };
    memory.put(key, &head(&root).to_bytes());
    let changed = Next { meta: Some(1), ..Next::default() };
    assert_eq!(now(scope.commit(&root, changed)), Err(StateError::Corrupt(scope.attempts_key())));
    assert_eq!(now(scope.begin()), Ok(root));
}
