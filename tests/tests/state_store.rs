//! What every backend of [`StateStore`] keeps to: one suite, run on SQLite, on a real NATS server, and on DynamoDB by AWS' own
//! clients and a local AWS. The latter are reported as ignored, by name, where there is no `nats-server` or no ministack.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use tapeline::{
    bus::nats::{Broker, Hop, NatsState, Outputs, StreamSettings},
    contract::Entry,
    error::Kind,
    store::{Aside, AwsSettings, AwsStores, Commit, DeadLetter, Progress, ReadFrom, SqliteStore, StateStore},
};
use tapeline_harness::{local_aws::LocalAws, shared_store};
use tapeline_tests::cluster::NatsServer;
use tempfile::TempDir;

/// Opens the same store again and again, as workers that take it over do.
type Open<'a> = &'a dyn Fn() -> Result<Box<dyn StateStore>>;
type Law = fn(Open<'_>) -> Result<()>;

fn main() {
    let laws: [(&str, Law); 5] = [
        ("what_was_committed_is_there", what_was_committed_is_there),
        ("one_that_was_taken_over_from_commits_nothing", one_that_was_taken_over_from_commits_nothing),
        ("a_refused_commit_changes_nothing", a_refused_commit_changes_nothing),
        ("state_that_is_all_deleted_stays_deleted", state_that_is_all_deleted_stays_deleted),
        ("much_state_over_many_commits_is_kept", much_state_over_many_commits_is_kept),
    ];
    let is_missing = !NatsServer::is_there();
    let again = Trial::test("nats::what_a_position_gives_out_is_published_again", || {
        what_a_position_gives_out_is_published_again().map_err(|error| Failed::from(format!("{error:#}")))
    });
    let trials = laws.into_iter().flat_map(|(name, law)| {
        let of = |result: Result<()>| result.map_err(|error| Failed::from(format!("{error:#}")));
        [
            Trial::test(format!("sqlite::{name}"), move || of(on_sqlite(law))),
            Trial::test(format!("nats::{name}"), move || of(on_nats(law))).with_ignored_flag(is_missing),
            Trial::test(format!("aws::{name}"), move || of(on_aws(law))).with_ignored_flag(!LocalAws::is_there()),
        ]
    });
    let trials = trials.chain([again.with_ignored_flag(is_missing)]);
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn on_sqlite(law: Law) -> Result<()> {
    let folder = TempDir::new()?;
    // A lock keeps two processes off one folder; the law is about what happens when it does not.
    let open = |folder: &Path| -> Result<Box<dyn StateStore>> {
        if folder.join("lock").exists() {
            std::fs::remove_file(folder.join("lock"))?;
        }
        Ok(Box::new(SqliteStore::open(folder)?))
    };
    law(&|| open(folder.path()))
}

fn on_nats(law: Law) -> Result<()> {
    let folder = TempDir::new()?;
    let server = NatsServer::start(folder.path())?;
    let broker = Broker::connect(&server.url(), None)?;
    let hop = Hop { pipeline: "p".to_owned(), stage: "next".to_owned() };
    broker.ensure(&hop, StreamSettings { partitions: 1, replicas: 1, bytes_max: 256 << 20 })?;
    let stopping = Arc::new(AtomicBool::new(false));
    law(&|| {
        let state = NatsState::load(broker.clone(), hop.clone(), "0", Outputs::One(0), Arc::clone(&stopping))?;
        Ok(Box::new(state))
    })
}

fn on_aws(law: Law) -> Result<()> {
    let aws = LocalAws::start()?;
    shared_store::create(&aws, "p")?;
    let stores = open_aws(&aws)?;
    law(&|| Ok(Box::new(stores.open(3)?)))
}

/// The stores of a local AWS.
fn open_aws(aws: &LocalAws) -> Result<AwsStores> {
    Ok(AwsStores::start(AwsSettings {
        program: shared_store::keeper(),
        stack: shared_store::STACK.to_owned(),
        pipeline: "p".to_owned(),
        stages: vec!["dedup".to_owned(), "write".to_owned()],
        partitions: 4,
        environment: aws.environment().map(|(name, value)| (name.to_owned(), Some(value))).into(),
    })?)
}

/// A worker that ends between storing its position and publishing what it gives out.
fn what_a_position_gives_out_is_published_again() -> Result<()> {
    let folder = TempDir::new()?;
    let server = NatsServer::start(folder.path())?;
    let broker = Broker::connect(&server.url(), None)?;
    let hop = Hop { pipeline: "p".to_owned(), stage: "next".to_owned() };
    broker.ensure(&hop, StreamSettings { partitions: 1, replicas: 1, bytes_max: 256 << 20 })?;
    let stopping = Arc::new(AtomicBool::new(false));
    let load = || NatsState::load(broker.clone(), hop.clone(), "0", Outputs::One(0), Arc::clone(&stopping));
    let letter = DeadLetter {
        id: 0,
        aside: Aside::Dead,
        stage: "s".to_owned(),
        component: String::new(),
        symbol: String::new(),
        time: None,
        reason: "why".to_owned(),
        origin: String::new(),
        format: "events".to_owned(),
        received: None,
        payload: vec![1],
        partition: None,
        is_redriven: false,
    };
    let mut state = load()?;
    state.commit(Commit { dead_letters: vec![letter], ..commit(1, vec![entry("A", 1, Some(vec![1]))]) })?;
    state.settle(true)?;
    drop(state);
    // The last message of the partition, taken out of the stream.
    let take = || {
        tokio::runtime::Runtime::new()?.block_on(async {
            let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await?);
            let stream = jetstream.get_stream(hop.stream()).await?;
            let message = stream.get_last_raw_message_by_subject(&hop.data(0)).await?;
            stream.delete_message(message.sequence).await?;
            Ok::<_, anyhow::Error>(message.payload)
        })
    };
    let first = take()?;
    ensure!(take().is_err(), "there are two of it");
    let state = load()?;
    ensure!(take()? == first, "another message was published again");
    ensure!(values(&state)? == [("A".to_owned(), 1, vec![1])], "{:?}", values(&state)?);
    Ok(())
}

fn entry(key: &str, part: u64, value: Option<Vec<u8>>) -> Entry {
    Entry { key: key.to_owned(), part, version: 3, value, wake_at: Some(-7), expires_at: None }
}

fn commit(watermark: i64, entries: Vec<Entry>) -> Commit {
    let read = ReadFrom { last: 9, watermark, ends: 1 };
    let progress = Progress { watermark, read: BTreeMap::from([("0".to_owned(), read)]), ..Progress::default() };
    Commit { progress, state: vec![("dedup".to_owned(), entries)], ..Commit::default() }
}

/// Commits, and waits until it is known what became of it.
fn stored(store: &mut Box<dyn StateStore>, commit: Commit) -> tapeline::error::Result<()> {
    store.commit(commit)?;
    store.settle(true).map(drop)
}

fn values(store: &dyn StateStore) -> Result<Vec<(String, u64, Vec<u8>)>> {
    let entries = store.state("dedup")?.into_iter();
    Ok(entries.map(|entry| (entry.key, entry.part, entry.value.unwrap_or_default())).collect())
}

fn what_was_committed_is_there(open: Open<'_>) -> Result<()> {
    let mut store = open()?;
    ensure!(store.progress()? == Progress::default() && store.state("dedup")?.is_empty(), "a new store is not empty");
    let first = vec![entry("B", 1, Some(vec![1])), entry("A", 2, Some(vec![2])), entry("A", 1, Some(Vec::new()))];
    stored(&mut store, commit(5, first.clone()))?;
    stored(&mut store, commit(6, vec![entry("A", 2, None), entry("B", 1, Some(vec![3]))]))?;
    let expected = [("A".to_owned(), 1, Vec::new()), ("B".to_owned(), 1, vec![3])];
    ensure!(values(&*store)? == expected, "{:?}", values(&*store)?);
    drop(store);
    let store = open()?;
    ensure!(values(&*store)? == expected, "opened again: {:?}", values(&*store)?);
    ensure!(store.progress()? == commit(6, Vec::new()).progress, "{:?}", store.progress()?);
    let kept = store.state("dedup")?.into_iter().next().context("an entry")?;
    ensure!(kept == entry("A", 1, Some(Vec::new())), "{kept:?}");
    ensure!(store.state("another")?.is_empty(), "entries of another stage");
    Ok(())
}

fn one_that_was_taken_over_from_commits_nothing(open: Open<'_>) -> Result<()> {
    let mut former = open()?;
    stored(&mut former, commit(1, vec![entry("A", 1, Some(vec![1]))]))?;
    let mut present = open()?;
    stored(&mut present, commit(2, vec![entry("A", 1, Some(vec![2]))]))?;
    let refused = stored(&mut former, commit(3, vec![entry("A", 1, Some(vec![3]))]));
    ensure!(refused.as_ref().err().map(tapeline::error::Error::kind) == Some(Kind::Conflict), "{refused:?}");
    stored(&mut present, commit(4, vec![entry("B", 1, Some(vec![4]))]))?;
    drop((former, present));
    let store = open()?;
    ensure!(values(&*store)? == [("A".to_owned(), 1, vec![2]), ("B".to_owned(), 1, vec![4])], "{:?}", values(&*store)?);
    ensure!(store.progress()?.watermark == 4, "{:?}", store.progress()?);
    Ok(())
}

fn a_refused_commit_changes_nothing(open: Open<'_>) -> Result<()> {
    let mut store = open()?;
    stored(&mut store, commit(1, vec![entry("A", 1, Some(vec![1]))]))?;
    // Rows that no backend can take: of a table without a name.
    let rows = tapeline::contract::Rows { table: String::new(), key_columns: 9, columns: Vec::new() };
    let refused = stored(&mut store, Commit { rows: vec![rows], ..commit(2, vec![entry("A", 1, Some(vec![2]))]) });
    ensure!(refused.is_err_and(|error| error.kind() == Kind::Invalid), "it was taken");
    drop(store);
    let store = open()?;
    ensure!(values(&*store)? == [("A".to_owned(), 1, vec![1])], "{:?}", values(&*store)?);
    ensure!(store.progress()?.watermark == 1, "{:?}", store.progress()?);
    Ok(())
}

/// Also when the deletion is what makes a broker write a snapshot.
fn state_that_is_all_deleted_stays_deleted(open: Open<'_>) -> Result<()> {
    const PARTS: u64 = 40;
    let mut store = open()?;
    let all = |value: Option<Vec<u8>>| (0..PARTS).map(|part| entry("A", part, value.clone())).collect();
    stored(&mut store, commit(1, all(Some(vec![1; 200 << 10]))))?;
    stored(&mut store, commit(2, all(Some(vec![2; 200 << 10]))))?;
    for watermark in 3..40 {
        stored(&mut store, commit(watermark, vec![entry("A", 0, Some(vec![3; 200 << 10]))]))?;
        stored(&mut store, commit(watermark, all(None)))?;
    }
    drop(store);
    let found = values(&*open()?)?;
    ensure!(found.is_empty(), "{} entries", found.len());
    Ok(())
}

/// Twelve times what a broker keeps as changes before it makes a snapshot.
fn much_state_over_many_commits_is_kept(open: Open<'_>) -> Result<()> {
    const PART_BYTES: usize = 200 << 10;
    const COMMITS: u64 = 60;
    const PARTS: u64 = 40;
    let mut store = open()?;
    let value = |number: u64| vec![number as u8; PART_BYTES];
    let mut expected = BTreeMap::new();
    for number in 0..COMMITS {
        let changed: Vec<u64> = (0..4).map(|at| (number * 7 + at * 11) % PARTS).collect();
        let mut entries: BTreeMap<u64, Entry> =
            changed.iter().map(|part| (*part, entry("A", *part, Some(value(number))))).collect();
        entries.insert(number % PARTS, entry("A", number % PARTS, None));
        for (part, entry) in &entries {
            match &entry.value {
                Some(value) => expected.insert(*part, value.clone()),
                None => expected.remove(part),
            };
        }
        stored(&mut store, commit(number as i64, entries.into_values().collect()))?;
        if number % 20 == 19 {
            drop(store);
            store = open()?;
        }
    }
    let found: BTreeMap<u64, Vec<u8>> = values(&*store)?.into_iter().map(|(_, part, value)| (part, value)).collect();
    ensure!(found.keys().eq(expected.keys()), "{:?} not {:?}", found.keys(), expected.keys());
    ensure!(found == expected, "a value is another one");
    Ok(())
}
