//! A pipeline whose segments are chained by a broker, on as many hosts as there are.
//!
//! Each segment but the first and the last runs once for each partition, on whichever host the broker lets read it; the
//! others stand by. The first one is where the data comes in, the last one where the tables are. Where the tables are in a
//! store that hosts share, the last one runs as those between.

mod merged;
mod partition;
mod relay;
mod watch;

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

pub use self::watch::event_lines;
use self::{
    merged::Merged,
    partition::Place,
    relay::{Signal, Telling, relay},
};
use super::{Observer, Rollout, Worker, commit_settings, spec::Pipeline, watermark_settings, worker::Step};
use crate::{
    batch,
    bus::nats::{Broker, Hop, Inbox, Members, NatsState, Outputs, Received, StreamSettings},
    error::{Error, Kind, Result},
    metrics::{Metrics, PartitionMetrics},
    segment::{NoTap, Origin, Segment, Work, is_end},
    store::{AwsStores, ReadFrom, SqliteStore, StateStore},
};

/// How long a worker waits for more before it commits what it has, while the commit before is under way.
const LINGER: Duration = Duration::from_millis(2);
/// How long a worker without work waits before it looks whether it is to stop.
const IDLE_LOOK: Duration = Duration::from_millis(250);
/// How long the last segment leaves several quiet partitions alone.
const TURN_MAX: Duration = Duration::from_millis(32);
/// Where tables are that hosts do not share.
const FOLDER: &str = "the data folder of a host";
/// What the first segment is called as a producer.
const SOURCE: &str = "source";

/// What all workers of a chain share.
#[derive(Clone)]
pub struct Chain {
    pipeline: Arc<Pipeline>,
    rollout: Rollout,
    broker: Broker,
    /// Where the last segment of every host writes to; none where that is one host's folder.
    shared: Option<AwsStores>,
    is_stopping: Arc<AtomicBool>,
    error: Arc<Mutex<Option<Error>>>,
    /// How far the last segment has read each partition.
    written: Arc<Mutex<BTreeMap<String, ReadFrom>>>,
    metrics: Metrics,
}

/// Workers that run.
pub struct Workers {
    chain: Chain,
    threads: Vec<JoinHandle<()>>,
}

impl Chain {
    /// Makes the streams of a pipeline, or brings them in order. With a store that hosts share, the last segment runs on any
    /// of them.
    ///
    /// # Errors
    /// When the broker refuses them.
    pub fn new(
        pipeline: Pipeline,
        rollout: Rollout,
        broker: Broker,
        shared: Option<AwsStores>,
        metrics: Metrics,
    ) -> Result<Self> {
        let chain = Self {
            pipeline: Arc::new(pipeline),
            rollout,
            broker,
            shared,
            is_stopping: Arc::default(),
            error: Arc::default(),
            written: Arc::default(),
            metrics,
        };
        chain.broker.refuse_unfit()?;
        let settings = stream_settings(&chain.pipeline);
        for hop in chain.hops() {
            chain.broker.ensure(&hop, settings)?;
        }
        Ok(chain)
    }

    /// A worker of the first segment, which data is given to.
    ///
    /// # Errors
    /// When the broker cannot be reached, or the stage does not start.
    pub fn source(&self, observer: Box<dyn Observer>) -> Result<Worker<NatsState>> {
        let nats = &self.pipeline.nats;
        let [own, _, ..] = nats.segments.as_slice() else {
            return Err(Error::invalid("chain fewer than two segments"));
        };
        let state = self.state(&self.hop(own), SOURCE, Outputs::Split(nats.partitions))?;
        self.worker(own, None, state, observer)
    }

    /// The store that hosts share, if they do.
    pub const fn shared(&self) -> Option<&AwsStores> {
        self.shared.as_ref()
    }

    /// Starts workers for segments between the first and the last, and for the last one where hosts share its store, of all
    /// partitions, whose first stage is one of these; all of them if none is named.
    ///
    /// # Errors
    /// When the broker refuses a consumer.
    pub fn start(&self, stages: &[String]) -> Result<Workers> {
        let segments = &self.pipeline.nats.segments;
        // The first one is no pair's second; the last one is another worker's, unless its store is shared.
        let others = if self.shared.is_some() { 1 } else { 2 };
        let between = segments.windows(2).take(segments.len().saturating_sub(others));
        let pairs: Vec<_> = between
            .filter_map(|pair| match pair {
                [before, own] => Some((before, own, self.first_stage(own))),
                _ => None,
            })
            .filter(|(_, _, reader)| stages.is_empty() || stages.contains(reader))
            .collect();
        let mut threads = Vec::new();
        if pairs.is_empty() {
            return Ok(Workers { chain: self.clone(), threads });
        }
        if let (Some(stores), true) = (&self.shared, pairs.iter().any(|(_, own, _)| self.is_last(own))) {
            self.claim_for(stores)?;
        }
        let partitions = self.pipeline.nats.partitions;
        let readers = pairs.iter().map(|(.., reader)| reader.clone()).collect();
        let members = Arc::new(Members::join(&self.broker, &self.pipeline.name, readers, partitions)?);
        for (before, own, reader) in pairs {
            let shared = self.shared.clone().filter(|_| self.is_last(own));
            for partition in 0..partitions {
                let mut inbox = self.broker.inbox(&self.hop(before), &reader, partition)?;
                let metrics = self.metrics.partition(&reader, partition);
                watch_lag(&mut inbox, &metrics);
                let place = Place { own: own.clone(), reader: reader.clone(), partition, metrics };
                let (chain, members, shared) = (self.clone(), Arc::clone(&members), shared.clone());
                threads.push(thread::spawn(move || {
                    let run = match shared {
                        None => chain.run_partition(&place, &members, inbox, || chain.between(&place)),
                        Some(stores) => chain.run_partition(&place, &members, inbox, || chain.last(&place, &stores)),
                    };
                    chain.clone().note(run);
                }));
            }
        }
        Ok(Workers { chain: self.clone(), threads })
    }

    /// Runs the last segment on the tables of a store, until the chain stops.
    ///
    /// # Errors
    /// When the broker refuses a consumer, or the store does not open.
    pub fn write(&self, store: SqliteStore, observer: Box<dyn Observer>) -> Result<Workers> {
        let [.., before, own] = self.pipeline.nats.segments.as_slice() else {
            return Err(Error::invalid("chain fewer than two segments"));
        };
        let partitions = 0..self.pipeline.nats.partitions;
        let (hop, reader) = (self.hop(before), self.first_stage(own));
        self.broker.claim(&hop, FOLDER)?;
        let inboxes = partitions.map(|partition| self.broker.inbox(&hop, &reader, partition));
        let mut inboxes = inboxes.collect::<Result<Vec<_>>>()?;
        let signal = Arc::new(Signal::default());
        let metrics: Vec<PartitionMetrics> =
            (0..self.pipeline.nats.partitions).map(|partition| self.metrics.partition(&reader, partition)).collect();
        inboxes.iter_mut().zip(&metrics).for_each(|(inbox, metrics)| watch_lag(inbox, metrics));
        let beside = store.second()?;
        let observer = Writing { metrics: metrics.clone(), inner: observer };
        let observer = Telling { signal: Arc::clone(&signal), inner: Box::new(observer) };
        let worker = self.worker(own, None, store, Box::new(observer))?;
        let (chain, ended) = (self.clone(), Arc::clone(&signal));
        let writer = thread::spawn(move || {
            chain.clone().note(chain.run_writer(worker, inboxes, &metrics));
            ended.end();
        });
        let (broker, pipeline) = (self.broker.clone(), Arc::clone(&self.pipeline));
        let relay = thread::spawn(move || relay(&broker, &pipeline.name, pipeline.nats.replicas, &beside, &signal));
        Ok(Workers { chain: self.clone(), threads: vec![writer, relay] })
    }

    /// Waits until all partitions have been written up to the end number `ends`, or the chain has stopped.
    ///
    /// # Errors
    /// What stopped it.
    pub fn wait_for_end(&self, ends: u64) -> Result<()> {
        loop {
            self.check()?;
            let written = self.written.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let is_done = |partition: u32| written.get(&partition.to_string()).is_some_and(|read| read.ends >= ends);
            if (0..self.pipeline.nats.partitions).all(is_done) {
                return Ok(());
            }
            thread::sleep(LINGER);
        }
    }

    /// What has stopped the chain, if anything.
    ///
    /// # Errors
    /// It.
    pub fn check(&self) -> Result<()> {
        match self.error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn hops(&self) -> Vec<Hop> {
        hops(&self.pipeline)
    }

    /// Where a segment gives out to.
    fn hop(&self, segment: &Range<usize>) -> Hop {
        hop(&self.pipeline, segment)
    }

    fn is_last(&self, segment: &Range<usize>) -> bool {
        segment.end == self.pipeline.stages.len()
    }

    /// The stage that a segment is called by as a reader.
    fn first_stage(&self, segment: &Range<usize>) -> String {
        stage_name(&self.pipeline, segment.start)
    }

    fn state(&self, hop: &Hop, producer: &str, outputs: Outputs) -> Result<NatsState> {
        NatsState::load(self.broker.clone(), hop.clone(), producer, outputs, Arc::clone(&self.is_stopping))
    }

    fn worker<S: StateStore>(
        &self,
        own: &Range<usize>,
        partition: Option<u32>,
        store: S,
        observer: Box<dyn Observer>,
    ) -> Result<Worker<S>> {
        let watermark = watermark_settings(&self.pipeline);
        // What is live at this moment: what was decided while another host worked on this counts.
        let make = |stages| Segment::part(stages, own.start, watermark, Box::new(NoTap), &store);
        let segment = self.rollout.segment(own.clone(), make)?.on_partition(partition);
        Worker::new(segment, store, commit_settings(&self.pipeline), observer)
    }

    /// Whether its workers stop, or have stopped.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Keeps the error that ended a worker, and stops the others.
    fn note(self, ended: Result<()>) {
        if let Err(error) = ended {
            tracing::error!(error = super::job::error_text(&error), "a worker failed");
            self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            self.is_stopping.store(true, Ordering::Release);
        }
    }

    fn run_writer<S: StateStore>(
        &self,
        mut worker: Worker<S>,
        mut inboxes: Vec<Inbox>,
        metrics: &[PartitionMetrics],
    ) -> Result<()> {
        metrics.iter().for_each(|metrics| metrics.owns(true));
        let read = worker.progress().read.clone();
        self.written.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&read);
        for (partition, inbox) in inboxes.iter_mut().enumerate() {
            let producer = partition.to_string();
            inbox.rewind(read.get(&producer).map(|read| (producer, read.last)).into_iter());
        }
        let mut merged = Merged::new(&read, self.pipeline.nats.partitions);
        let mut has_read = false;
        let mut idle = LINGER;
        while !self.is_stopping() {
            // One can be waited for; several are looked at in turns, the less often the longer nothing comes.
            let patience = match (worker.has_uncommitted() || has_read, inboxes.len()) {
                (true, _) => Duration::ZERO,
                (false, 1) => IDLE_LOOK,
                (false, _) => {
                    thread::sleep(idle);
                    idle = (idle * 2).min(TURN_MAX);
                    Duration::ZERO
                }
            };
            has_read = false;
            for (inbox, metrics) in inboxes.iter_mut().zip(metrics) {
                let received = inbox.next(patience)?;
                if inbox.has_lost() {
                    return Err(lost());
                }
                if let Some(received) = received {
                    (has_read, idle) = (true, LINGER);
                    take(&mut worker, received, metrics, Some(&mut merged))?;
                }
            }
            if !has_read {
                worker.commit()?;
            }
            let stored = worker.settled()?;
            inboxes.iter().for_each(|inbox| inbox.finish(stored));
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            if *written != *stored {
                written.clone_from(stored);
            }
        }
        worker.commit()?;
        let stored = worker.settled()?;
        inboxes.iter().for_each(|inbox| inbox.finish_and_wait(stored));
        Ok(())
    }
}

impl Workers {
    /// One thread that goes along with a chain, and ends when it stops.
    pub(super) fn one(chain: Chain, run: impl FnOnce(&Chain) + Send + 'static) -> Self {
        let thread = thread::spawn({
            let chain = chain.clone();
            move || run(&chain)
        });
        Self { chain, threads: vec![thread] }
    }

    /// Whether they stop, or have stopped.
    pub fn is_stopping(&self) -> bool {
        self.chain.is_stopping()
    }

    /// Lets workers commit what they have.
    pub(super) fn begin_to_stop(&self) {
        self.chain.is_stopping.store(true, Ordering::Release);
    }

    /// Lets workers commit what they have, and waits for them.
    ///
    /// # Errors
    /// What had stopped them before.
    pub fn stop(self) -> Result<()> {
        self.begin_to_stop();
        for thread in self.threads {
            if thread.join().is_err() {
                return Err(Error::new(Kind::Internal, "stop: a worker panicked"));
            }
        }
        self.chain.check()
    }
}

/// What is given out by all segments of a pipeline but the last.
pub fn hops(pipeline: &Pipeline) -> Vec<Hop> {
    let segments = &pipeline.nats.segments;
    segments.iter().take(segments.len().saturating_sub(1)).map(|segment| hop(pipeline, segment)).collect()
}

/// How a pipeline's streams are kept.
pub fn stream_settings(pipeline: &Pipeline) -> StreamSettings {
    let nats = &pipeline.nats;
    let bytes_max = i64::try_from(nats.stream_bytes_max).unwrap_or(i64::MAX);
    StreamSettings { partitions: nats.partitions, replicas: nats.replicas, bytes_max }
}

/// Where the state of a stage between the first segment and the last is kept.
pub(super) fn partition_hop(pipeline: &Pipeline, stage: &str) -> Hop {
    let at = pipeline.stages.iter().position(|known| known.name == stage).unwrap_or_default();
    let segment = pipeline.nats.segments.iter().find(|segment| segment.contains(&at));
    hop(pipeline, &segment.cloned().unwrap_or(at..at + 1))
}

fn hop(pipeline: &Pipeline, segment: &Range<usize>) -> Hop {
    Hop { pipeline: pipeline.name.clone(), stage: stage_name(pipeline, segment.end.saturating_sub(1)) }
}

fn stage_name(pipeline: &Pipeline, at: usize) -> String {
    pipeline.stages.get(at).map_or_else(String::new, |stage| stage.name.clone())
}

/// Lets the metrics of all partitions know of the commits that they share.
struct Writing {
    metrics: Vec<PartitionMetrics>,
    inner: Box<dyn Observer>,
}

impl Observer for Writing {
    fn committed(&mut self, commit: &super::Committed, tapped: Vec<crate::segment::Tapped>) {
        for metrics in &mut self.metrics {
            metrics.committed(commit, Vec::new());
        }
        self.inner.committed(commit, tapped);
    }

    fn stored(&mut self, took: Duration) {
        for metrics in &mut self.metrics {
            metrics.stored(took);
        }
        self.inner.stored(took);
    }
}

/// Nobody looks at the commits between the first segment and the last.
pub(super) struct Unobserved;

impl Observer for Unobserved {
    fn committed(&mut self, _: &super::Committed, _: Vec<crate::segment::Tapped>) {}
}

/// Lets the metrics say how many messages wait, as long as this host works on the partition.
fn watch_lag(inbox: &mut Inbox, metrics: &PartitionMetrics) {
    let (owner, noted) = (metrics.clone(), metrics.clone());
    inbox.watch_lag(move || owner.is_owned(), move |messages| noted.lags(messages));
}

fn lost() -> Error {
    Error::new(Kind::Corrupt, "read a partition in order: the broker has lost a message")
}

/// Gives a message to a worker. Where several partitions meet, their marks become those that all have reached.
fn take<S: StateStore>(
    worker: &mut Worker<S>,
    received: Received,
    metrics: &PartitionMetrics,
    merged: Option<&mut Merged>,
) -> Result<()> {
    let Received { mut message, sequence, is_redelivered, delivered } = received;
    metrics.received(batch::event_count(&message.batch) as u64, is_redelivered, delivered);
    let producer = std::mem::take(&mut message.producer);
    let mut read = worker.read_of(&producer);
    read.last = message.number;
    let marks = message.batch.marks.iter().copied();
    read.ends += marks.clone().filter(|mark| is_end(*mark)).count() as u64;
    read.watermark = marks.filter(|mark| !is_end(*mark)).fold(read.watermark, i64::max);
    if let Some(merged) = merged {
        batch::replace_marks(&mut message.batch, merged.reach(&producer, &read));
    }
    let origin = Origin { source: format!("{producer} message"), positions: vec![sequence] };
    worker.take(Work::Carried { message, origin }, Step::Message { producer, read })
}
