//! A pipeline that runs until it is told to stop: sources write to the journal, a worker reads it.
//!
//! What a source or a client sends is in the journal, durably, before anybody is told so. The worker goes on from the
//! last commit; whatever is in the journal behind it is read again after a crash.

use std::{
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::oneshot;

use super::{
    Chain, Hub, Observer, Rollout, Worker, Workers, commit_settings,
    journal::{CURSOR_FORMAT, JournalReader, WATERMARK_FORMAT},
    spec::{Pipeline, Source, Watermark},
    watermark_settings,
    worker::Committed,
};
use crate::{
    connector::{FrameKind, Simulator},
    error::{Error, Kind, Result},
    segment::{Segment, Tapped},
    store::{AwsStores, JournalRecord, SqliteStore, StateStore, Store as _},
};

/// Records of the journal that wait for the worker before new ones are refused: at 200,000 a second, five seconds.
pub const BACKLOG_RECORDS_MAX: u64 = 1_000_000;
/// Requests that wait to be written to the journal.
const INGEST_QUEUE_MAX: usize = 1_024;
/// Records that are written to the journal in one transaction.
const INGEST_RECORDS_MAX: usize = 20_000;
/// How often the simulator writes its trades to the journal.
const SIMULATOR_STEP: Duration = Duration::from_millis(50);
/// How often a worker without work looks for journal records of other processes (`dead-letters redrive`).
const IDLE_LOOK: Duration = Duration::from_millis(250);

/// What a live pipeline is made of.
pub struct LiveOptions {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// Which versions of its stages run.
    pub rollout: Rollout,
    /// The data folder.
    pub data: PathBuf,
    /// Its store.
    pub store: SqliteStore,
    /// Watches commits.
    pub observer: Box<dyn Observer>,
    /// Whether the source of the pipeline file runs, or only what comes by HTTP is taken.
    pub with_source: bool,
    /// The chain whose ends this is, and which stages between them run here; none for a pipeline in one process.
    pub chain: Option<(Chain, Vec<String>)>,
}

/// A running pipeline.
pub struct Live {
    ingest: Ingest,
    hub: Hub,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// The rest of a chain.
    workers: Vec<Workers>,
}

/// Puts records into the journal of a running pipeline. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    queue: mpsc::SyncSender<Request>,
    shared: Arc<Shared>,
}

/// Why records were not taken.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Too much is waiting. The source should try again later.
    #[error("{waiting} records wait to be processed; at most {BACKLOG_RECORDS_MAX} may")]
    Full {
        /// Records that wait.
        waiting: u64,
    },
    /// The pipeline is stopping, or has failed.
    #[error("the pipeline does not take records any more")]
    Stopped,
    /// This host runs only stages behind the first.
    #[error("records come in at the host that runs the first stage of this pipeline")]
    Elsewhere,
    /// They could not be stored.
    #[error("the records could not be stored")]
    Store(#[source] Error),
}

struct Request {
    records: Vec<JournalRecord>,
    answer: oneshot::Sender<Result<u64>>,
}

#[derive(Default)]
struct Shared {
    is_stopping: AtomicBool,
    journal_end: AtomicU64,
    journal_done: AtomicU64,
    is_caught_up: AtomicBool,
    error: Mutex<Option<String>>,
    wake: Condvar,
    /// Guards nothing but the waiting.
    wake_lock: Mutex<()>,
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    fn waiting(&self) -> u64 {
        self.journal_end.load(Ordering::Acquire).saturating_sub(self.journal_done.load(Ordering::Acquire))
    }

    /// Sleeps until something is in the journal, or the time is over.
    fn sleep(&self, time: Duration) {
        let guard = self.wake_lock.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.wake.wait_timeout_while(guard, time, |()| self.waiting() == 0 && !self.is_stopping()));
    }

    /// Wakes the worker: with the lock, so that it cannot fall asleep in between.
    fn wake(&self) {
        let _guard = self.wake_lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.wake.notify_all();
    }

    fn fail(&self, what: &str, error: &Error) {
        let text = super::job::error_text(error);
        tracing::error!(what, error = text, "the pipeline stops");
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{what}: {text}"));
        self.stop();
    }

    fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.wake();
    }
}

impl Ingest {
    /// Stores records; gives the number of the last one once it is durable.
    ///
    /// # Errors
    /// See [`IngestError`]. None of the records is taken then.
    pub async fn append(&self, records: Vec<JournalRecord>) -> Result<u64, IngestError> {
        let waiting = self.shared.waiting();
        if waiting + records.len() as u64 > BACKLOG_RECORDS_MAX {
            return Err(IngestError::Full { waiting });
        }
        if self.shared.is_stopping() {
            return Err(IngestError::Stopped);
        }
        let (answer, stored) = oneshot::channel();
        self.queue.try_send(Request { records, answer }).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => IngestError::Full { waiting },
            mpsc::TrySendError::Disconnected(_) => IngestError::Stopped,
        })?;
        stored.await.map_err(|_| IngestError::Stopped)?.map_err(IngestError::Store)
    }
}

impl Live {
    /// Starts the worker, the journal's writer and the source.
    ///
    /// # Errors
    /// When a stage does not start or the store cannot be read.
    pub fn start(options: LiveOptions) -> Result<Self> {
        let LiveOptions { pipeline, rollout, data, store, observer, with_source, chain } = options;
        let shared = Arc::new(Shared::default());
        let hub = Hub::new(&pipeline.name, pipeline.stages.iter().map(|stage| stage.name.clone()).collect());
        let (journal, reader) = (SqliteStore::open_second(&data)?, SqliteStore::open_second(&data)?);
        shared.journal_end.store(journal.journal_end()?, Ordering::Release);
        let (queue, requests) = mpsc::sync_channel(INGEST_QUEUE_MAX);
        let ingest = Ingest { queue, shared: Arc::clone(&shared) };
        let feed = Feed { with_source, reader, ingest: ingest.clone(), shared: Arc::clone(&shared) };
        let (worker, workers) = match chain {
            None => {
                super::job::check_not_chained(&store)?;
                let watermark = watermark_settings(&pipeline);
                let all = 0..pipeline.stages.len();
                let make = |stages| Segment::new(stages, watermark, Box::new(hub.clone()), &store);
                let segment = rollout.segment(all, make)?;
                let observer = Box::new(Publishing { hub: hub.clone(), inner: observer });
                let worker = Worker::new(segment, store, commit_settings(&pipeline), observer)?;
                (feed.start(worker, pipeline), Vec::new())
            }
            Some((chain, stages)) => {
                super::job::check_chained(&store)?;
                let mut worker = chain.source(Box::new(super::Unobserved))?;
                super::job::check_same_chain(&worker, &store)?;
                if let Some(shared) = chain.shared() {
                    check_same_store(&worker, shared)?;
                    check_untouched(&store, shared)?;
                }
                worker.set_journal(store.identity()?)?;
                let workers = match chain.shared() {
                    None => vec![chain.write(store, observer)?, chain.start(&stages)?],
                    Some(_) => vec![keep_open(chain.clone(), store), chain.start(&stages)?],
                };
                chain.show_in(&hub);
                let watched = watch(chain, Arc::clone(&shared));
                let fed = feed.start(worker, pipeline);
                (fed, workers.into_iter().chain([watched]).collect())
            }
        };
        let writer = thread::spawn({
            let shared = Arc::clone(&shared);
            move || write_journal(journal, &requests, &shared)
        });
        Ok(Self { ingest, hub, shared, threads: vec![worker, writer], workers })
    }

    /// Takes records for this pipeline.
    pub fn ingest(&self) -> Ingest {
        self.ingest.clone()
    }

    /// The subjects that can be watched.
    pub fn hub(&self) -> Hub {
        self.hub.clone()
    }

    /// Whether all that was in the journal at the start has been processed and nothing has failed.
    pub fn is_ready(&self) -> bool {
        self.shared.is_caught_up.load(Ordering::Acquire) && !self.shared.is_stopping()
    }

    /// Records of the journal that wait for the worker.
    pub fn waiting(&self) -> u64 {
        self.shared.waiting()
    }

    /// Whether it has stopped, or will, and the error that made it.
    pub fn stopped(&self) -> Option<Option<String>> {
        let error = || self.shared.error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.shared.is_stopping().then(error)
    }

    /// Stops the source, lets the worker finish what is in the journal, and commits it.
    ///
    /// # Errors
    /// The error that stopped it before, if there was one.
    pub fn drain(self) -> Result<()> {
        self.shared.stop();
        let Self { ingest, threads, shared, workers, .. } = self;
        drop(ingest);
        // First: a commit that the broker does not take is tried again until then.
        workers.iter().for_each(Workers::begin_to_stop);
        for thread in threads {
            if thread.join().is_err() {
                return Err(Error::new(Kind::Internal, "finish: a thread of the pipeline panicked"));
            }
        }
        // What is under way between the ends of a chain is stored where it is, and goes on when somebody works on it.
        workers.into_iter().try_for_each(Workers::stop)?;
        match shared.error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(()),
            Some(error) => Err(Error::new(Kind::Internal, error)),
        }
    }
}

/// Publishes what stages gave out, and passes commits on.
struct Publishing {
    hub: Hub,
    inner: Box<dyn Observer>,
}

impl Observer for Publishing {
    fn committed(&mut self, commit: &Committed, tapped: Vec<Tapped>) {
        self.hub.publish(tapped);
        self.inner.committed(commit, Vec::new());
    }
}

/// Writes requests to the journal, as many as there are in one transaction, and answers them when they are durable.
fn write_journal(mut journal: SqliteStore, requests: &mpsc::Receiver<Request>, shared: &Shared) {
    while let Some(first) = next_request(requests, shared) {
        let mut batch = first.records;
        let mut answers = vec![(batch.len() as u64, first.answer)];
        while batch.len() < INGEST_RECORDS_MAX {
            let Ok(request) = requests.try_recv() else { break };
            batch.extend(request.records);
            answers.push((batch.len() as u64, request.answer));
        }
        let total = batch.len() as u64;
        match journal.append_journal(&batch) {
            Ok(last) => {
                shared.journal_end.fetch_max(last, Ordering::AcqRel);
                shared.wake();
                for (count, answer) in answers {
                    let _ = answer.send(Ok(last - total + count));
                }
            }
            Err(error) => {
                let text = super::job::error_text(&error);
                tracing::error!(error = text, "records not stored");
                for (_, answer) in answers {
                    let _ = answer.send(Err(Error::new(error.kind(), text.clone())));
                }
            }
        }
    }
}

/// The next request; `None` once the pipeline stops and none is left.
fn next_request(requests: &mpsc::Receiver<Request>, shared: &Shared) -> Option<Request> {
    loop {
        match requests.recv_timeout(IDLE_LOOK) {
            Ok(request) => return Some(request),
            Err(mpsc::RecvTimeoutError::Timeout) if !shared.is_stopping() => {}
            Err(_) => return None,
        }
    }
}

/// What feeds the worker of the first segment.
struct Feed {
    with_source: bool,
    reader: SqliteStore,
    ingest: Ingest,
    shared: Arc<Shared>,
}

impl Feed {
    fn start<S: StateStore + 'static>(self, worker: Worker<S>, pipeline: Pipeline) -> JoinHandle<()> {
        self.shared.journal_done.store(worker.progress().journal_sequence, Ordering::Release);
        thread::spawn(move || self.work(worker, &pipeline))
    }

    fn work<S: StateStore>(self, mut worker: Worker<S>, pipeline: &Pipeline) {
        let Self { with_source, reader, ingest, shared } = self;
        let mut journal = JournalReader::new(reader, worker.progress().journal_sequence);
        if let Err(error) = catch_up(&mut worker, &mut journal, &shared) {
            return shared.fail("process the journal", &error);
        }
        let source = with_source.then_some(&pipeline.source);
        let simulator = source.and_then(|source| start_simulator(source, &worker, &ingest, &shared));
        let worked = work_on(&mut worker, &mut journal, pipeline, &ingest, &shared);
        match &worked {
            // What is in the journal goes on with the next start.
            Err(error) if shared.is_stopping() && error.kind() == Kind::Unavailable => {}
            Err(error) => shared.fail("process events", error),
            Ok(()) => {}
        }
        if let Some(simulator) = simulator
            && simulator.join().is_err()
        {
            shared.fail("simulate a market", &Error::new(Kind::Internal, "its thread panicked"));
        }
        // What the source stored last is processed too, so that a drained pipeline has nothing waiting.
        if worked.is_ok()
            && let Err(error) = catch_up(&mut worker, &mut journal, &shared)
            && error.kind() != Kind::Unavailable
        {
            shared.fail("process the journal", &error);
        }
    }
}

/// Whether a store that hosts share has not seen more of a chain than there is.
///
/// # Errors
/// `Conflict` when the broker knows nothing of a chain that has written there: it would number its messages from 1 again, and
/// they would count as seen.
fn check_same_store<S: StateStore>(source: &Worker<S>, shared: &AwsStores) -> Result<()> {
    if !source.progress().journal.is_empty() || !shared.is_used()? {
        return Ok(());
    }
    let stack = shared.stack();
    let message = format!(
        "write to stack {stack}: it holds what a chain has written of which the broker knows nothing; deploy another stack"
    );
    Err(Error::new(Kind::Conflict, message))
}

/// Whether a data folder has no tables of the chain, which are on AWS.
///
/// # Errors
/// `Conflict` when it has: the rows would be divided between both.
fn check_untouched(store: &SqliteStore, shared: &AwsStores) -> Result<()> {
    if store.progress()?.read.is_empty() {
        return Ok(());
    }
    let stack = shared.stack();
    let message = format!(
        "write to stack {stack}: the data folder holds tables of this chain; leave --aws out, or give another --data"
    );
    Err(Error::new(Kind::Conflict, message))
}

/// Nobody else may use the data folder as long as its journal feeds a chain.
fn keep_open(chain: Chain, store: SqliteStore) -> Workers {
    Workers::one(chain, move |chain| {
        while !chain.is_stopping() {
            thread::sleep(IDLE_LOOK);
        }
        drop(store);
    })
}

/// Stops the pipeline when a worker of its chain has failed.
fn watch(chain: Chain, shared: Arc<Shared>) -> Workers {
    Workers::one(chain, move |chain| {
        while !chain.is_stopping() && !shared.is_stopping() {
            thread::sleep(IDLE_LOOK);
        }
        if let Err(error) = chain.check() {
            shared.fail("chain the stages", &error);
        }
    })
}

fn catch_up<S: StateStore>(worker: &mut Worker<S>, journal: &mut JournalReader, shared: &Shared) -> Result<()> {
    journal.read_all(worker)?;
    worker.commit()?;
    note_progress(worker, shared);
    shared.is_caught_up.store(true, Ordering::Release);
    Ok(())
}

fn note_progress<S: StateStore>(worker: &Worker<S>, shared: &Shared) {
    shared.journal_done.store(worker.progress().journal_sequence, Ordering::Release);
    shared.journal_end.fetch_max(worker.progress().journal_sequence, Ordering::AcqRel);
}

fn work_on<S: StateStore>(
    worker: &mut Worker<S>,
    journal: &mut JournalReader,
    pipeline: &Pipeline,
    ingest: &Ingest,
    shared: &Shared,
) -> Result<()> {
    let mut idle = IdleClock::new(&pipeline.watermark);
    while !shared.is_stopping() {
        if journal.step(worker)? {
            note_progress(worker, shared);
            continue;
        }
        // Nothing waits: what was done is committed at once, so that a quiet market is not a late one.
        worker.commit()?;
        note_progress(worker, shared);
        if let Some(mark) = idle.due(worker.times()) {
            store_mark(mark, ingest);
        }
        shared.sleep(IDLE_LOOK.min(pipeline.commit.every));
    }
    Ok(())
}

/// Moves the watermark of a quiet market on by the clock, through the journal, so that a replay does the same.
fn store_mark(mark: i64, ingest: &Ingest) {
    let record = JournalRecord {
        format: WATERMARK_FORMAT.to_owned(),
        stage: None,
        received: Some(now_ns()),
        bytes: mark.to_string().into_bytes(),
    };
    let (answer, _) = oneshot::channel();
    // A full queue is no quiet market.
    let _ = ingest.queue.try_send(Request { records: vec![record], answer });
}

/// Finds out that no event has come for a while.
struct IdleClock {
    idle: Duration,
    delay_ns: i64,
    newest: i64,
    since: Instant,
    next: Duration,
}

impl IdleClock {
    fn new(watermark: &Watermark) -> Self {
        let idle = watermark.idle;
        Self { idle, delay_ns: watermark.delay_ns, newest: i64::MIN, since: Instant::now(), next: idle }
    }

    /// The watermark that time has reached, when it is time to say so: after `idle`, twice `idle`, four times, ...
    fn due(&mut self, (newest, watermark): (i64, i64)) -> Option<i64> {
        if newest != self.newest {
            (self.newest, self.since, self.next) = (newest, Instant::now(), self.idle);
        }
        let elapsed = self.since.elapsed();
        if newest == i64::MIN || elapsed < self.next {
            return None;
        }
        self.next *= 2;
        let passed = i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX);
        let reached = newest.saturating_add(passed).saturating_sub(self.delay_ns);
        (reached > watermark).then_some(reached)
    }
}

fn start_simulator<S: StateStore>(
    source: &Source,
    worker: &Worker<S>,
    ingest: &Ingest,
    shared: &Arc<Shared>,
) -> Option<JoinHandle<()>> {
    let Source::Simulator(settings) = source else { return None };
    let simulator = match &worker.progress().cursor {
        Some(cursor) => Simulator::resume(settings, cursor),
        None => Simulator::new(settings),
    };
    let rate = settings.rate;
    match simulator {
        Ok(simulator) => {
            let (ingest, shared) = (ingest.clone(), Arc::clone(shared));
            Some(thread::spawn(move || simulate(simulator, rate, &ingest, &shared)))
        }
        Err(error) => {
            shared.fail("go on simulating", &error);
            None
        }
    }
}

/// Sends simulated frames at the pace of the clock. A full pipeline slows it; nothing is left out.
fn simulate(mut simulator: Simulator, rate: f64, ingest: &Ingest, shared: &Shared) {
    let mut owed = 0.0;
    let mut last = Instant::now();
    while !shared.is_stopping() {
        thread::sleep(SIMULATOR_STEP);
        // After a pause the market does not make up for what it missed.
        owed += rate * last.elapsed().min(Duration::from_secs(1)).as_secs_f64();
        last = Instant::now();
        if owed < 1.0 || shared.waiting() > BACKLOG_RECORDS_MAX / 2 {
            continue;
        }
        let mut records = Vec::new();
        let mut trades = 0.0;
        while trades + 1.0 <= owed {
            let now = now_ns();
            let frame = simulator.next_frame(now / 1_000_000);
            trades += f64::from(u8::from(frame.kind == FrameKind::Trade));
            records.push(JournalRecord {
                format: "binance".to_owned(),
                stage: None,
                received: Some(now),
                bytes: frame.text.as_bytes().to_vec(),
            });
        }
        owed -= trades;
        let cursor = simulator.cursor().into_bytes();
        records.push(JournalRecord { format: CURSOR_FORMAT.to_owned(), stage: None, received: None, bytes: cursor });
        let (answer, stored) = oneshot::channel();
        if ingest.queue.send(Request { records, answer }).is_err() || stored.blocking_recv().is_err() {
            return;
        }
    }
}

/// Now, ns since the epoch, UTC.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
