//! A pipeline whose segments are chained by a broker, on as many hosts as there are.
//!
//! Each segment but the first and the last runs once for each partition, on whichever host the broker lets read it; the
//! others stand by. The first one is where the data comes in, the last one where the tables are.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Components, Observer, Worker, commit_settings, spec::Pipeline, watermark_settings, worker::Step};
use crate::{
    batch,
    bus::nats::{Broker, Hop, Inbox, NatsState, Outputs, Received, StreamSettings},
    contract::END,
    error::{Error, Kind, Result},
    segment::{Blueprint, NoTap, Origin, Segment, Work, is_end},
    store::{ReadFrom, StateStore},
};

/// How long a worker waits for more before it commits what it has.
const LINGER: Duration = Duration::from_millis(2);
/// How long a worker without work waits before it looks whether it is to stop.
const IDLE_LOOK: Duration = Duration::from_millis(250);
/// After so long without a message it is not certain that no other host has taken over.
const CERTAIN: Duration = Duration::from_secs(1);
/// How long a message may be missing before it counts as lost. A dead reader's come again after two seconds.
const GAP_TIME_MAX: Duration = Duration::from_secs(60);
/// Pause before a broker is asked again that could not be reached.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// What the first segment is called as a producer.
const SOURCE: &str = "source";

/// What all workers of a chain share.
#[derive(Clone)]
pub struct Chain {
    pipeline: Arc<Pipeline>,
    components: Components,
    broker: Broker,
    is_stopping: Arc<AtomicBool>,
    error: Arc<Mutex<Option<Error>>>,
    /// How far the last segment has read each partition.
    written: Arc<Mutex<BTreeMap<String, ReadFrom>>>,
}

/// Workers that run.
pub struct Workers {
    chain: Chain,
    threads: Vec<JoinHandle<()>>,
}

impl Chain {
    /// Makes the streams of a pipeline, or brings them in order.
    ///
    /// # Errors
    /// When the broker refuses them.
    pub fn new(pipeline: Pipeline, components: Components, broker: Broker) -> Result<Self> {
        let chain = Self {
            pipeline: Arc::new(pipeline),
            components,
            broker,
            is_stopping: Arc::default(),
            error: Arc::default(),
            written: Arc::default(),
        };
        let nats = &chain.pipeline.nats;
        let bytes_max = i64::try_from(nats.stream_bytes_max).unwrap_or(i64::MAX);
        let settings = StreamSettings { partitions: nats.partitions, replicas: nats.replicas, bytes_max };
        let given_out = nats.segments.len().saturating_sub(1);
        for segment in nats.segments.iter().take(given_out) {
            chain.broker.ensure(&chain.hop(segment), settings)?;
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
        self.worker(own, state, observer)
    }

    /// Starts workers for segments between the first and the last, of all partitions, whose first stage is one of these;
    /// all of them if none is named.
    ///
    /// # Errors
    /// When the broker refuses a consumer.
    pub fn start(&self, stages: &[String]) -> Result<Workers> {
        let mut threads = Vec::new();
        let pairs = self.pipeline.nats.segments.windows(2);
        let between = self.pipeline.nats.segments.len().saturating_sub(2);
        for pair in pairs.take(between) {
            let [before, own] = pair else { continue };
            let reader = self.first_stage(own);
            if !stages.is_empty() && !stages.contains(&reader) {
                continue;
            }
            for partition in 0..self.pipeline.nats.partitions {
                let inbox = self.broker.inbox(&self.hop(before), &reader, partition)?;
                let (chain, own) = (self.clone(), own.clone());
                threads.push(thread::spawn(move || chain.clone().note(chain.run_partition(&own, partition, inbox))));
            }
        }
        Ok(Workers { chain: self.clone(), threads })
    }

    /// Runs the last segment on the tables of a store, until the chain stops.
    ///
    /// # Errors
    /// When the broker refuses a consumer, or the store does not open.
    pub fn write<S: StateStore + 'static>(&self, store: S, observer: Box<dyn Observer>) -> Result<Workers> {
        let [.., before, own] = self.pipeline.nats.segments.as_slice() else {
            return Err(Error::invalid("chain fewer than two segments"));
        };
        let partitions = 0..self.pipeline.nats.partitions;
        let (hop, reader) = (self.hop(before), self.first_stage(own));
        let inboxes = partitions.map(|partition| self.broker.inbox(&hop, &reader, partition));
        let inboxes = inboxes.collect::<Result<Vec<_>>>()?;
        let worker = self.worker(own, store, observer)?;
        let chain = self.clone();
        let thread = thread::spawn(move || chain.clone().note(chain.run_writer(worker, inboxes)));
        Ok(Workers { chain: self.clone(), threads: vec![thread] })
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

    /// Where a segment gives out to.
    fn hop(&self, segment: &Range<usize>) -> Hop {
        Hop { pipeline: self.pipeline.name.clone(), stage: self.stage_name(segment.end.saturating_sub(1)) }
    }

    /// The stage that a segment is called by as a reader.
    fn first_stage(&self, segment: &Range<usize>) -> String {
        self.stage_name(segment.start)
    }

    fn stage_name(&self, at: usize) -> String {
        self.pipeline.stages.get(at).map_or_else(String::new, |stage| stage.name.clone())
    }

    fn state(&self, hop: &Hop, producer: &str, outputs: Outputs) -> Result<NatsState> {
        NatsState::load(self.broker.clone(), hop.clone(), producer, outputs, Arc::clone(&self.is_stopping))
    }

    fn worker<S: StateStore>(&self, own: &Range<usize>, store: S, observer: Box<dyn Observer>) -> Result<Worker<S>> {
        let stages = self.components.stages.get(own.clone()).unwrap_or_default();
        let blueprints = stages.iter().map(|stage| Box::new(stage.clone()) as Box<dyn Blueprint>).collect();
        let watermark = watermark_settings(&self.pipeline);
        let segment = Segment::part(blueprints, own.start, watermark, Box::new(NoTap), &store)?;
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

    fn run_partition(&self, own: &Range<usize>, partition: u32, mut inbox: Inbox) -> Result<()> {
        let (hop, reader) = (self.hop(own), self.first_stage(own));
        while !self.is_stopping() {
            let load = || self.state(&hop, &partition.to_string(), Outputs::One(partition));
            let owned = load().and_then(|state| self.own(self.worker(own, state, Box::new(Unobserved))?, &mut inbox));
            match owned {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), Kind::Conflict | Kind::Unavailable) => {
                    let reason = super::job::error_text(&error);
                    tracing::warn!(stage = reader, partition, reason, "going back to what is committed");
                    thread::sleep(if error.kind() == Kind::Conflict { LINGER } else { RETRY_PAUSE });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Works on a partition until another host has taken it over, or the chain stops.
    fn own(&self, mut worker: Worker<NatsState>, inbox: &mut Inbox) -> Result<()> {
        inbox.rewind(worker.progress().read.iter().map(|(producer, read)| (producer.clone(), read.last)));
        let mut last_message: Option<Instant> = None;
        while !self.is_stopping() {
            let patience = if worker.has_uncommitted() { LINGER } else { IDLE_LOOK };
            let received = inbox.next(patience)?;
            let is_certain = last_message.is_some_and(|at| at.elapsed() < CERTAIN);
            if !is_certain && (received.is_some() || inbox.gap().is_some()) && !worker.store().is_current()? {
                return Ok(());
            }
            check_gap(inbox)?;
            match received {
                Some(received) => {
                    last_message = Some(Instant::now());
                    take(&mut worker, received, None)?;
                }
                None => worker.commit()?,
            }
            if !worker.has_uncommitted() {
                inbox.finish();
            }
        }
        worker.commit()?;
        inbox.finish();
        Ok(())
    }

    fn run_writer<S: StateStore>(&self, mut worker: Worker<S>, mut inboxes: Vec<Inbox>) -> Result<()> {
        let read = worker.progress().read.clone();
        self.written.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&read);
        for (partition, inbox) in inboxes.iter_mut().enumerate() {
            let producer = partition.to_string();
            inbox.rewind(read.get(&producer).map(|read| (producer, read.last)).into_iter());
        }
        let mut merged = Merged::new(&read, self.pipeline.nats.partitions);
        let mut has_read = false;
        while !self.is_stopping() {
            let patience = if worker.has_uncommitted() || has_read { LINGER } else { IDLE_LOOK };
            let share = patience / u32::try_from(inboxes.len()).unwrap_or(1);
            has_read = false;
            for inbox in &mut inboxes {
                let received = inbox.next(share)?;
                check_gap(inbox)?;
                if let Some(received) = received {
                    has_read = true;
                    take(&mut worker, received, Some(&mut merged))?;
                }
            }
            if !has_read {
                worker.commit()?;
            }
            if !worker.has_uncommitted() {
                inboxes.iter_mut().for_each(Inbox::finish);
                self.written.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&worker.progress().read);
            }
        }
        worker.commit()
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

/// Nobody looks at the commits between the first segment and the last.
pub(super) struct Unobserved;

impl Observer for Unobserved {
    fn committed(&mut self, _: &super::Committed, _: Vec<crate::segment::Tapped>) {}
}

/// The watermark of several partitions: that of the one that is furthest behind.
struct Merged {
    watermarks: BTreeMap<String, i64>,
    current: i64,
    ends: BTreeMap<String, u64>,
    ended: u64,
}

impl Merged {
    fn new(read: &BTreeMap<String, ReadFrom>, partitions: u32) -> Self {
        let mut merged = Self { watermarks: BTreeMap::new(), current: i64::MIN, ends: BTreeMap::new(), ended: 0 };
        for producer in (0..partitions).map(|partition| partition.to_string()) {
            let known = read.get(&producer).copied().unwrap_or_default();
            merged.watermarks.insert(producer.clone(), known.watermark);
            merged.ends.insert(producer, known.ends);
        }
        (merged.current, merged.ended) = merged.reached();
        merged
    }

    fn reached(&self) -> (i64, u64) {
        let watermark = self.watermarks.values().copied().min().unwrap_or(i64::MIN);
        (watermark, self.ends.values().copied().min().unwrap_or(0))
    }

    /// The marks that all have reached now: the watermark if it has moved, and the end of everything.
    fn reach(&mut self, producer: &str, read: &ReadFrom) -> Vec<i64> {
        self.watermarks.insert(producer.to_owned(), read.watermark);
        self.ends.insert(producer.to_owned(), read.ends);
        let (watermark, ended) = self.reached();
        let mut marks = Vec::new();
        if watermark > self.current {
            marks.push(watermark);
        }
        if ended > self.ended {
            marks.push(END);
        }
        (self.current, self.ended) = (self.current.max(watermark), ended);
        marks
    }
}

/// Whether a message has been missing for so long that it must be lost.
fn check_gap(inbox: &Inbox) -> Result<()> {
    match inbox.gap() {
        Some(gap) if gap > GAP_TIME_MAX => {
            Err(Error::new(Kind::Corrupt, "read a partition in order: the broker has lost a message"))
        }
        _ => Ok(()),
    }
}

/// Gives a message to a worker. Where several partitions meet, their marks become those that all have reached.
fn take<S: StateStore>(worker: &mut Worker<S>, received: Received, merged: Option<&mut Merged>) -> Result<()> {
    let Received { mut message, sequence } = received;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_have_the_watermark_of_the_last_one() {
        let mut merged = Merged::new(&BTreeMap::new(), 2);
        let read = |watermark, ends| ReadFrom { last: 1, watermark, ends };
        assert_eq!(merged.reach("0", &read(10, 0)), [0_i64; 0]);
        assert_eq!(merged.reach("1", &read(5, 0)), [5]);
        assert_eq!(merged.reach("1", &read(7, 0)), [7]);
        assert_eq!(merged.reach("1", &read(20, 1)), [10]);
        assert_eq!(merged.reach("1", &read(30, 1)), [0_i64; 0]);
        assert_eq!(merged.reach("0", &read(30, 1)), [30, END]);
        assert_eq!(merged.reach("0", &read(30, 2)), [0_i64; 0]);
    }
}
