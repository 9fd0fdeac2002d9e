//! What every [`Bucket`] must do, and what is built on it: the same checks for all of them.

#![allow(clippy::missing_panics_doc, clippy::unwrap_used, reason = "it is a test")]

use futures_util::future::join_all;
use tapeline_invoke::contract::Entry;

use crate::{Bucket, Changes, Head, Limits, Next, Scope, StateError, page_beside};

/// Requests at once.
const REQUESTS: u64 = 6;
/// Bytes of the largest part that a stage may have, as the contract says.
const PART_BYTES: usize = 256 << 10;

/// Checks a bucket; it may hold other keys than those that begin with `prefix`.
pub async fn check(bucket: &impl Bucket, prefix: &str) {
    check_values(bucket, prefix).await;
    check_numbers_and_swaps(bucket, prefix).await;
    check_that_commits_happen_once(bucket, prefix).await;
    check_that_state_comes_back(bucket, prefix).await;
}

async fn check_values(bucket: &impl Bucket, prefix: &str) {
    let key = |number: usize| format!("{prefix}/values/{number}");
    let keys: Vec<String> = (0..40).map(key).collect();
    let all = || join_all(keys.chunks(25).map(|keys| bucket.get_many(keys)));
    let found = |values: Vec<Result<_, _>>| values.into_iter().flat_map(|values: Result<Vec<_>, _>| values.unwrap());
    assert!(found(all().await).all(|value: Option<Vec<u8>>| value.is_none()));
    let values = |keys: &[String]| keys.iter().map(|key| (key.clone(), key.clone().into_bytes())).collect::<Vec<_>>();
    for keys in keys[..35].chunks(25) {
        bucket.set_many(&values(keys)).await.unwrap();
    }
    bucket.set_many(&[(key(3), Vec::new()), (key(4), vec![0; PART_BYTES + 1_000])]).await.unwrap();
    bucket.delete_many(&[key(5), key(39), key(6)]).await.unwrap();
    for (number, value) in found(all().await).enumerate() {
        let expected = match number {
            3 => Some(Vec::new()),
            4 => Some(vec![0; PART_BYTES + 1_000]),
            5 | 6 | 35.. => None,
            _ => Some(key(number).into_bytes()),
        };
        assert_eq!(value, expected, "{number}");
    }
    for keys in keys.chunks(25) {
        bucket.delete_many(keys).await.unwrap();
    }
}

async fn check_numbers_and_swaps(bucket: &impl Bucket, prefix: &str) {
    let (number, head) = (format!("{prefix}/number"), format!("{prefix}/swapped"));
    let sums = join_all((0..REQUESTS).map(|_| bucket.increment(&number, 2))).await;
    let mut sums: Vec<i64> = sums.into_iter().map(Result::unwrap).collect();
    sums.sort_unstable();
    assert_eq!(sums, (1..=REQUESTS as i64).map(|sum| 2 * sum).collect::<Vec<_>>());
    let new = |number: u64, root: &[u8]| Head { number, root: root.to_vec() };
    // Where there is none, and in the place of one that says nothing or much.
    assert_eq!(bucket.swap(&head, 7, &new(8, b"what")).await, Ok(false));
    assert_eq!(bucket.head(&head).await, Ok(None));
    let large: Vec<u8> = (0..PART_BYTES as u32 / 4).flat_map(|at| (at / 3).to_le_bytes()).collect();
    let mut expected = 0;
    for root in [b"first".as_slice(), &large, b""] {
        let heads: Vec<Head> = (1..=REQUESTS).map(|request| new(expected + request, root)).collect();
        let swaps = join_all(heads.iter().map(|new| bucket.swap(&head, expected, new)));
        let swapped = swaps.await.into_iter().zip(&heads).filter(|(swapped, _)| *swapped == Ok(true));
        let swapped: Vec<&Head> = swapped.map(|(_, new)| new).collect();
        assert_eq!(swapped.len(), 1, "in the place of {expected}");
        assert!(bucket.head(&head).await == Ok(swapped.first().copied().cloned()), "in the place of {expected}");
        assert_eq!(bucket.swap(&head, 0, &new(99, b"late")).await, Ok(false));
        assert_eq!(bucket.swap(&head, 98, &new(99, b"early")).await, Ok(false));
        expected = swapped.first().map_or(0, |head| head.number);
    }
    let mut all: Vec<String> = (1..=REQUESTS).map(|number| page_beside(&head, number)).collect();
    all.extend([number, head]);
    bucket.delete_many(&all).await.unwrap();
}

async fn check_that_commits_happen_once(bucket: &impl Bucket, prefix: &str) {
    let scope: Scope<'_, _, u64> = Scope::named(bucket, &format!("{prefix}/once"));
    let commits = (0..REQUESTS).map(|request| {
        let scope = &scope;
        async move {
            loop {
                let before = scope.begin().await.unwrap();
                let entries = vec![entry("all", request, &request.to_le_bytes())];
                let next = Next { meta: Some(before.meta + 1), changes: vec![changes(entries)], ..Next::default() };
                match scope.commit(&before, next).await {
                    Ok(_) => return,
                    refused => assert_eq!(refused, Err(StateError::Conflict)),
                }
            }
        }
    });
    join_all(commits).await;
    let root = scope.begin().await.unwrap();
    let found = scope.load(root.id(), &root.areas["a"], vec!["all".to_owned()], i64::MIN).await.unwrap();
    assert_eq!((root.meta, found.len()), (REQUESTS, REQUESTS as usize));
}

async fn check_that_state_comes_back(bucket: &impl Bucket, prefix: &str) {
    let limits = Limits { area_bytes: 2 << 20, ..Limits::default() };
    let scope: Scope<'_, _, u64> = Scope::named(bucket, &format!("{prefix}/state")).with_limits(limits);
    let mut all: Vec<Entry> = (0..60).map(|at| entry(&format!("k{at:02}"), at, &vec![at as u8; 20_000])).collect();
    all.push(entry("large", 1, &vec![1; PART_BYTES]));
    scope.commit(&scope.begin().await.unwrap(), with(all.clone())).await.unwrap();
    let root = scope.begin().await.unwrap();
    let keys = all.iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(scope.load(root.id(), &root.areas["a"], keys, i64::MIN).await.unwrap(), all);
    let more = (0..3).map(|at| entry("more", at, &vec![2; PART_BYTES])).collect();
    assert!(matches!(scope.commit(&root, with(more)).await, Err(StateError::Full { .. })));
    // Each commit deletes what nobody needs, so that what is stored does not grow.
    for round in 0..4 {
        scope.commit(&scope.begin().await.unwrap(), with(vec![entry("k07", 7, &[round])])).await.unwrap();
    }
    let first = scope.page_key(crate::tree::Page(root.id()));
    assert_eq!(bucket.get_many(&[first]).await.unwrap(), [None]);
    let deleted = all.into_iter().map(|entry| Entry { value: None, ..entry }).collect();
    scope.commit(&scope.begin().await.unwrap(), with(deleted)).await.unwrap();
    assert_eq!(scope.begin().await.unwrap().areas["a"].bytes(), 0);
}

fn with(entries: Vec<Entry>) -> Next<'static, u64> {
    Next { changes: vec![changes(entries)], ..Next::default() }
}

fn changes(entries: Vec<Entry>) -> Changes {
    Changes { area: "a".to_owned(), entries, looked: i64::MIN, watermark: i64::MIN, called: 0 }
}

fn entry(key: &str, part: u64, value: &[u8]) -> Entry {
    Entry { key: key.to_owned(), part, version: 1, value: Some(value.to_vec()), wake_at: None, expires_at: None }
}
