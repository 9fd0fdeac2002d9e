//! What a worker commits, and what it must not.

use std::time::Duration;

use anyhow::{Result, ensure};
use tapeline::{
    contract::{Entry, Frames},
    error::{Error, Kind},
    pipeline::{CommitSettings, Committed, Observer, Step, Worker, spec::Pipeline, watermark_settings},
    segment::{NoTap, Origin, Segment, Tapped, Work},
    store::{Commit, Progress, StateStore},
};
use tapeline_tests::{bench::chain, memory_store::MemoryStore, program};

struct Silent;

impl Observer for Silent {
    fn committed(&mut self, _: &Committed, _: Vec<Tapped>) {}
}

/// A store whose disk is full for the first commit.
#[derive(Default)]
struct FullOnce {
    inner: MemoryStore,
    has_failed: bool,
}

impl StateStore for FullOnce {
    fn progress(&self) -> tapeline::error::Result<Progress> {
        self.inner.progress()
    }

    fn state(&self, stage: &str) -> tapeline::error::Result<Vec<Entry>> {
        self.inner.state(stage)
    }

    fn commit(&mut self, commit: Commit) -> tapeline::error::Result<u64> {
        if !std::mem::replace(&mut self.has_failed, true) {
            return Err(Error::new(Kind::Unavailable, "find room on the disk"));
        }
        self.inner.commit(commit)
    }
}

fn worker<S: StateStore>(store: S, records_max: usize) -> Result<Worker<S>> {
    let pipeline = Pipeline::load(&program::bitcoin_pipeline())?;
    let stages = chain::native_stages(&pipeline);
    let segment = Segment::new(stages, watermark_settings(&pipeline), Box::new(NoTap), &store)?;
    let settings = CommitSettings { every: Duration::from_secs(3_600), records_max };
    Ok(Worker::new(segment, store, settings, Box::new(Silent))?)
}

fn frame() -> Work {
    let bytes = b"no JSON".to_vec();
    let ends = vec![bytes.len() as u32];
    let frames = Frames { names: Vec::new(), format: "binance".to_owned(), received: vec![0], ends, bytes };
    Work::Frames { frames, origin: Origin::default() }
}

/// What was in a commit that failed is gone from the worker: a later commit would pass over it.
#[test]
fn a_worker_that_could_not_commit_takes_nothing_more() -> Result<()> {
    let mut worker = worker(FullOnce::default(), 10)?;
    worker.take(frame(), Step::Journal(1))?;
    ensure!(worker.commit().is_err_and(|error| error.kind() == Kind::Unavailable), "the disk was not full");
    ensure!(worker.take(frame(), Step::Journal(2)).is_err(), "it took more");
    ensure!(worker.commit().is_err(), "it committed");
    let store = worker.into_store();
    ensure!(store.progress()?.journal_sequence == 0 && store.inner.dead.is_empty(), "something was stored");
    // Another worker on the same store does all of it.
    let mut worker = self::worker(store, 10)?;
    worker.take(frame(), Step::Journal(1))?;
    worker.commit()?;
    ensure!(worker.store().inner.dead.len() == 1 && worker.progress().journal_sequence == 1, "it is not stored");
    Ok(())
}

/// A piece that moves no position would be done again after a crash, if it was stored by itself.
#[test]
fn a_piece_without_a_position_is_stored_with_the_next_one() -> Result<()> {
    let mut worker = worker(MemoryStore::default(), 1)?;
    let records = vec![(b"much too long".to_vec(), "too long".to_owned())];
    let unreadable = Work::Unreadable { format: "binance".to_owned(), records, origin: Origin::default() };
    worker.take(unreadable, Step::None)?;
    ensure!(worker.store().dead.is_empty(), "it was stored by itself");
    worker.take(frame(), Step::Journal(1))?;
    ensure!(worker.store().dead.len() == 2, "{} dead letters", worker.store().dead.len());
    Ok(())
}
