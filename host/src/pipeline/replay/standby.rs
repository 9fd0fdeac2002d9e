//! A version that stood by while another one was live, and came back with its own state: what it kept meanwhile.
//!
//! That state depends on nothing but the stages before it, so they are run once more, up to this one, as if the other
//! version had never been.

use super::{Recorded, memory::MemoryState, sink::Sink, versions::Cast};
use crate::{
    contract::Entry,
    error::Result,
    pipeline::{Worker, worker::Step},
    segment::{Blueprint, Work},
    store::StateStore as _,
};

/// The stages up to one of which another version is live.
pub(super) struct Standby<'a> {
    recorded: &'a Recorded,
    /// The change by which it comes back.
    until: usize,
    stage_index: usize,
    cast: Cast,
    /// None once it has failed.
    worker: Option<Worker<MemoryState>>,
}

impl<'a> Standby<'a> {
    /// Goes on from a state with what ran until now.
    pub(super) fn new(
        recorded: &'a Recorded,
        until: usize,
        stage_index: usize,
        cast: Cast,
        store: MemoryState,
    ) -> Result<Self> {
        let worker = Some(worker(recorded, &cast, stage_index, store)?);
        Ok(Self { recorded, until, stage_index, cast, worker })
    }

    /// Whether it is the one that comes back by this change.
    pub(super) const fn is_until(&self, change: usize) -> bool {
        self.until == change
    }

    /// Does a piece of work and commits it. Where it fails, it does not stand by any more, as it did not then.
    pub(super) fn take(&mut self, work: &Work) {
        let Some(mut worker) = self.worker.take() else { return };
        match worker.take(work.clone(), Step::None).and_then(|()| worker.commit()) {
            Ok(()) => self.worker = Some(worker),
            Err(error) => tracing::warn!(%error, "what stood by cannot go on"),
        }
    }

    /// Lets a stage before it be what it became, with this state.
    pub(super) fn follow(&mut self, cast: &Cast, stage_index: usize, stage: &str, state: Vec<Entry>) -> Result<()> {
        if stage_index >= self.stage_index {
            return Ok(());
        }
        self.cast.copy(cast, stage_index);
        if let Some(worker) = self.worker.take() {
            let mut store = worker.into_store();
            store.put_state(stage, state);
            self.worker = Some(self::worker(self.recorded, &self.cast, self.stage_index, store)?);
        }
        Ok(())
    }

    /// What it keeps; none when it has failed.
    pub(super) fn state(self, stage: &str) -> Result<Option<Vec<Entry>>> {
        self.worker.map(|worker| worker.into_store().state(stage)).transpose()
    }
}

fn worker(recorded: &Recorded, cast: &Cast, stage_index: usize, store: MemoryState) -> Result<Worker<MemoryState>> {
    let mut stages = cast.blueprints();
    stages.truncate(stage_index + 1);
    stages.push(Box::new(Sink) as Box<dyn Blueprint>);
    recorded.worker(stages, store)
}
