//! The chain in memory, native or compiled, with the time that each stage takes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use tapeline::{
    connector::{Recording, SimulatorSettings, write_recording},
    contract::{Decoded, Description, END, Entry, Frames, Input, Output, Written},
    pipeline::{CommitSettings, Committed, Components, Observer, Step, Worker, spec::Pipeline, watermark_settings},
    runtime::{CompiledCache, Engine, Fault, Instance},
    segment::{Blueprint, NoTap, Origin, Role, Segment, Tapped, Work},
};

use crate::{memory_store::MemoryStore, native, program};

/// Trades at once.
const CHUNK_LINES: usize = 4_096;
const CHUNK_BYTES: usize = 1 << 20;

/// A seeded market of trades only, two symbols, a thousand trades in a second.
pub fn market(trades: u64) -> SimulatorSettings {
    let _ = trades;
    SimulatorSettings { rate: 1_000.0, noise: 0.0, ..SimulatorSettings::default() }
}

/// Writes a recording of the market.
///
/// # Errors
/// When it cannot be written.
pub fn write_market(path: &std::path::Path, trades: u64) -> Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    write_recording(&market(trades), 1_700_000_000_000_000_000, trades, &mut file)?;
    Ok(())
}

/// The recording's frames, in chunks.
///
/// # Errors
/// When it cannot be read.
pub fn read_market(path: &std::path::Path) -> Result<Vec<Frames>> {
    let mut recording = Recording::open(path)?;
    let mut chunks = Vec::new();
    while let Some(chunk) = recording.next_chunk(CHUNK_LINES, CHUNK_BYTES)? {
        chunks.push(Frames {
            names: Vec::new(),
            format: "binance".to_owned(),
            received: chunk.received,
            ends: chunk.ends,
            bytes: chunk.bytes,
        });
    }
    Ok(chunks)
}

/// The stages of a pipeline as native code.
pub fn native_stages(pipeline: &Pipeline) -> Vec<Box<dyn Blueprint>> {
    let settings = |name: &str| {
        pipeline.stages.iter().find(|stage| stage.name == name).map_or("{}", |stage| stage.settings.as_str())
    };
    vec![
        native::fetcher::<fetch::Fetch>(settings("fetch")),
        native::stage::<dedup::Dedup>(settings("dedup")),
        native::stage::<enrich::Enrich>(settings("enrich")),
        native::stage::<aggregate::Aggregate>(settings("aggregate")),
        native::stage::<alarm::Alarms>(settings("alarm")),
        native::writer::<write::Writer>(settings("write")),
    ]
}

/// The stages of a pipeline as components.
///
/// # Errors
/// When they have not been built.
pub fn wasm_stages(pipeline: &Pipeline) -> Result<Vec<Box<dyn Blueprint>>> {
    let engine = Engine::new(CompiledCache::of_user())?;
    Ok(Components::load(&engine, pipeline, Some(&program::components()))?.blueprints())
}

/// What a chain took.
#[derive(Debug)]
pub struct Took {
    /// Altogether.
    pub total: Duration,
    /// By stage.
    pub stages: Vec<(String, Duration)>,
    /// Rows that came of it.
    pub rows: u64,
}

/// Looks at no commit.
pub struct Silent;

impl Observer for Silent {
    fn committed(&mut self, _: &Committed, _: Vec<Tapped>) {}
}

/// Runs frames through a chain.
///
/// # Errors
/// When a stage fails.
pub fn run(pipeline: &Pipeline, stages: Vec<Box<dyn Blueprint>>, chunks: &[Frames]) -> Result<Took> {
    let (stages, times): (Vec<_>, Vec<_>) = stages.into_iter().map(Timed::wrap).unzip();
    let store = MemoryStore::default();
    let segment = Segment::new(stages, watermark_settings(pipeline), Box::new(NoTap), &store)?;
    let commit = CommitSettings { every: Duration::from_secs(3_600), records_max: 20_000 };
    let mut worker = Worker::new(segment, store, commit, Box::new(Silent))?;
    let started = Instant::now();
    for (number, frames) in (1..).zip(chunks) {
        let work = Work::Frames { frames: frames.clone(), origin: Origin::default() };
        worker.take(work, Step::Journal(number))?;
    }
    worker.take(Work::Mark(END), Step::None)?;
    worker.commit()?;
    let total = started.elapsed();
    let stages = times.into_iter().map(|(name, ns)| (name, Duration::from_nanos(ns.load(Ordering::Relaxed))));
    Ok(Took { total, stages: stages.collect(), rows: worker.store().rows })
}

/// A stage whose calls are timed.
struct Timed {
    inner: Box<dyn Blueprint>,
    ns: Arc<AtomicU64>,
}

impl Timed {
    fn wrap(inner: Box<dyn Blueprint>) -> (Box<dyn Blueprint>, (String, Arc<AtomicU64>)) {
        let ns = Arc::new(AtomicU64::new(0));
        let name = inner.name().to_owned();
        (Box::new(Self { inner, ns: Arc::clone(&ns) }), (name, ns))
    }
}

impl Blueprint for Timed {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn role(&self) -> Role {
        self.inner.role()
    }

    fn digest(&self) -> &str {
        self.inner.digest()
    }

    fn settings(&self) -> &str {
        self.inner.settings()
    }

    fn call_time_max(&self) -> Duration {
        self.inner.call_time_max()
    }

    fn instantiate(&self) -> Result<Box<dyn Instance>, Fault> {
        Ok(Box::new(TimedInstance { inner: self.inner.instantiate()?, ns: Arc::clone(&self.ns) }))
    }
}

struct TimedInstance {
    inner: Box<dyn Instance>,
    ns: Arc<AtomicU64>,
}

impl TimedInstance {
    fn time<T>(&mut self, call: impl FnOnce(&mut dyn Instance) -> T) -> T {
        let started = Instant::now();
        let answer = call(&mut *self.inner);
        self.ns.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        answer
    }
}

impl Instance for TimedInstance {
    fn describe(&mut self) -> Result<Description, Fault> {
        self.inner.describe()
    }

    fn restore(&mut self, entries: &[Entry], watermark: i64) -> Result<(), Fault> {
        self.inner.restore(entries, watermark)
    }

    fn checkpoint(&mut self) -> Result<Vec<Entry>, Fault> {
        self.time(|inner| inner.checkpoint())
    }

    fn process(&mut self, input: &Input) -> Result<Output, Fault> {
        self.time(|inner| inner.process(input))
    }

    fn decode(&mut self, frames: &Frames) -> Result<Decoded, Fault> {
        self.time(|inner| inner.decode(frames))
    }

    fn write(&mut self, input: &Input) -> Result<Written, Fault> {
        self.time(|inner| inner.write(input))
    }

    fn set_call_time_max(&mut self, limit: Duration) {
        self.inner.set_call_time_max(limit);
    }
}
