//! Work on one partition of a segment behind the first: taken over from whoever had it, and given up to whoever is to have it.

use std::{
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use super::{Chain, IDLE_LOOK, LINGER, SOURCE, Writing, lost, take};
use crate::{
    bus::nats::{Inbox, Members, NatsState, Outputs},
    error::{Error, Kind, Result},
    metrics::PartitionMetrics,
    pipeline::{Worker, job::error_text},
    store::{AwsStore, AwsStores, StateStore},
};

/// How often a worker whose partition is another host's looks whether it still is.
const STANDBY_LOOK: Duration = Duration::from_millis(100);
/// After so long without a message it is not certain that no other host has taken over.
const CERTAIN: Duration = Duration::from_secs(1);
/// Pause before a broker is asked again that could not be reached.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A store that another host may take over.
pub(super) trait Contended: StateStore {
    /// Whether nobody else has committed since.
    fn is_current(&mut self) -> Result<bool>;
}

impl Contended for NatsState {
    fn is_current(&mut self) -> Result<bool> {
        Self::is_current(self)
    }
}

impl Contended for AwsStore {
    fn is_current(&mut self) -> Result<bool> {
        Self::is_current(self)
    }
}

/// What a worker of a partition works on.
pub(super) struct Place {
    /// The stages, by their places in the pipeline.
    pub(super) own: Range<usize>,
    /// The first stage, by which the worker is known.
    pub(super) reader: String,
    pub(super) partition: u32,
    pub(super) metrics: PartitionMetrics,
}

impl Chain {
    /// A worker of a partition between the first segment and the last, that goes on from what is committed.
    pub(super) fn between(&self, Place { own, partition, metrics, .. }: &Place) -> Result<Option<Worker<NatsState>>> {
        let state = self.state(&self.hop(own), &partition.to_string(), Outputs::One(*partition))?;
        self.worker(own, Some(*partition), state, Box::new(metrics.clone())).map(Some)
    }

    /// A worker of a partition of the last segment, on the store that hosts share; none before the first one has given out
    /// anything.
    pub(super) fn last(&self, place: &Place, stores: &AwsStores) -> Result<Option<Worker<AwsStore>>> {
        let Place { own, partition, metrics, .. } = place;
        let Some(journal) = self.journal()? else { return Ok(None) };
        self.claim_for(stores)?;
        let observer = Writing { metrics: vec![metrics.clone()], inner: Box::new(self.metrics.clone()) };
        let mut worker = self.worker(own, Some(*partition), stores.open(*partition)?, Box::new(observer))?;
        // The messages of another chain have other numbers: some would count as seen.
        if !worker.progress().journal.is_empty() && worker.progress().journal != journal {
            let stack = stores.stack();
            return Err(Error::invalid(format!(
                "write to stack {stack}: it holds what another chain has written, which was fed from another data folder; \
                 deploy another stack for this one"
            )));
        }
        worker.set_journal(journal)?;
        Ok(Some(worker))
    }

    /// Notes that the tables of the chain are in this store.
    pub(super) fn claim_for(&self, stores: &AwsStores) -> Result<()> {
        let [.., before, _] = self.pipeline.nats.segments.as_slice() else { return Ok(()) };
        let claimed = self.broker.claim(&self.hop(before), &format!("stack {}", stores.stack()));
        // Nobody takes over by trying again.
        claimed.map_err(|error| match error.kind() {
            Kind::Conflict => Error::caused(Kind::Invalid, "write to the store that hosts share", error),
            _ => error,
        })
    }

    /// Identity of the journal that feeds the chain; none before the first segment has committed.
    fn journal(&self) -> Result<Option<String>> {
        let Some(first) = self.pipeline.nats.segments.first() else { return Ok(None) };
        let progress = NatsState::progress_of(&self.broker, &self.hop(first), SOURCE)?;
        Ok(Some(progress.journal).filter(|journal| !journal.is_empty()))
    }

    /// Works on a partition whenever it is for this host, until the chain stops. `load` makes a worker that goes on from what
    /// is committed; none while there is nothing to read.
    pub(super) fn run_partition<S: Contended>(
        &self,
        place: &Place,
        members: &Members,
        mut inbox: Inbox,
        load: impl Fn() -> Result<Option<Worker<S>>>,
    ) -> Result<()> {
        let Place { reader, partition, metrics, .. } = place;
        while !self.is_stopping() {
            if !members.is_mine(reader, *partition) {
                thread::sleep(STANDBY_LOOK);
                continue;
            }
            let worked = match load() {
                Ok(Some(worker)) => self.own(worker, place, members, &mut inbox),
                Ok(None) => {
                    thread::sleep(STANDBY_LOOK);
                    continue;
                }
                Err(error) => Err(error),
            };
            match worked {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), Kind::Conflict | Kind::Unavailable) => {
                    let reason = error_text(&error);
                    tracing::warn!(stage = reader, partition, reason, "going back to what is committed");
                    thread::sleep(if error.kind() == Kind::Conflict { LINGER } else { RETRY_PAUSE });
                }
                Err(error) => return Err(error),
            }
            // Whatever the reason: what this host has and does not work on nobody else would be given.
            inbox.release();
            metrics.owns(false);
        }
        Ok(())
    }

    /// Works on a partition until it is for another host, one has taken it over, or the chain stops.
    fn own<S: Contended>(
        &self,
        mut worker: Worker<S>,
        Place { reader, partition, metrics, .. }: &Place,
        members: &Members,
        inbox: &mut Inbox,
    ) -> Result<()> {
        inbox.rewind(worker.progress().read.iter().map(|(producer, read)| (producer.clone(), read.last)));
        metrics.owns(true);
        let mut last_message: Option<Instant> = None;
        let is_mine = || members.is_mine(reader, *partition);
        while !self.is_stopping() && is_mine() {
            let patience = match (worker.is_settling(), worker.has_uncommitted()) {
                (true, _) => LINGER,
                // What comes during a commit goes together into the next one: batches grow with the load by themselves.
                (false, true) => Duration::ZERO,
                (false, false) if worker.is_changing() => LINGER,
                (false, false) => IDLE_LOOK,
            };
            let received = inbox.next(patience)?;
            let is_certain = last_message.is_some_and(|at| at.elapsed() < CERTAIN);
            if !is_certain && (received.is_some() || inbox.has_gap()) && !worker.store_mut().is_current()? {
                return Ok(());
            }
            // One that has committed meanwhile has what is missing.
            if inbox.has_lost() && worker.store_mut().is_current()? {
                return Err(lost());
            }
            match received {
                Some(received) => {
                    last_message = Some(Instant::now());
                    take(&mut worker, received, metrics, None)?;
                }
                None => worker.commit()?,
            }
            inbox.finish(worker.settled()?);
        }
        worker.commit()?;
        inbox.finish_and_wait(worker.settled()?);
        if !is_mine() {
            inbox.unpin();
        }
        Ok(())
    }
}
