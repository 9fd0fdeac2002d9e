//! How long a worker stands still when another version takes a stage's place.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tapeline::{
    contract::Frames,
    pipeline::{CommitSettings, Components, Step, WasmStage, Worker, spec::Pipeline, watermark_settings},
    runtime::{CompiledCache, Engine},
    segment::{Blueprint, News, NoTap, Origin, Plan, Plans, Segment, Work},
    store::{SqliteStore, StateStore as _},
};

use super::chain::Silent;
use crate::program;

/// Symbols, each with an entry of state.
const ENTRIES: usize = 100_000;
const SWAPS: u64 = 100;
/// Trades of a piece of work, and between commits.
const PIECE: usize = 500;
const COMMIT: usize = 2_000;
/// Where the market begins: 2024-08-08T00:00:00Z, in seconds.
const START: u64 = 1_723_075_200;

const PIPELINE: &str = r#"
name = "swapping"
[[stages]]
name = "fetch"
[[stages]]
name = "dedup"
[[stages]]
name = "write"
[stages.settings]
tables = ["alarms"]
objects = []
"#;

/// Pauses of swaps, and what else took time.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    /// Entries of state.
    pub entries: usize,
    /// Pause of a swap, ms: the median, the 99th of a hundred, and the longest.
    pub pause_ms: [f64; 3],
    /// Longest piece of work, its commit included, while versions came and went, ms; the 99th of a hundred, and the longest.
    pub swapping_ms: [f64; 2],
    /// The same while nothing was changed.
    pub quiet_ms: [f64; 2],
}

/// Says which of two versions is to run, and hears what becomes of it.
struct Deciding {
    versions: [Arc<WasmStage>; 2],
    wanted: AtomicU64,
    pauses: Mutex<Vec<Duration>>,
    wrong: Mutex<Vec<String>>,
}

impl Plans for Deciding {
    fn generation(&self) -> u64 {
        self.wanted.load(Ordering::Acquire)
    }

    fn plan(&self, stage: &str) -> Option<Plan> {
        let live = &self.versions[self.generation() as usize % 2];
        let live: Arc<dyn Blueprint> = Arc::<WasmStage>::clone(live);
        (stage == live.name()).then(|| Plan { live, probation: None, shadow: None })
    }

    fn report(&self, _: &str, _: Option<u32>, news: News) {
        match news {
            News::Live { pause, .. } => self.pauses.lock().unwrap_or_else(PoisonError::into_inner).push(pause),
            News::Runs { .. } | News::Proven { .. } => {}
            other => self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{other:?}")),
        }
    }
}

/// Swaps dedup, with an entry of state for each of many symbols, on a store on the disk, under load.
///
/// # Errors
/// When a stage fails, or a version does not take over.
pub fn pauses(folder: &std::path::Path) -> Result<Pauses> {
    let pipeline = Pipeline::parse(&folder.join("swapping.toml"), PIPELINE)?;
    let engine = Engine::new(CompiledCache::of_user())?;
    let components = Components::load(&engine, &pipeline, Some(&program::components()))?;
    let dedup = components.stage("dedup").context("the stage")?;
    let versions = [1, 2].map(|number| Arc::new(dedup.clone().of_version(number)));
    let deciding =
        Arc::new(Deciding { versions, wanted: AtomicU64::new(0), pauses: Mutex::default(), wrong: Mutex::default() });
    let blueprints: Vec<Box<dyn Blueprint>> = components
        .stages
        .iter()
        .map(|stage| -> Box<dyn Blueprint> {
            let is_dedup = stage.name() == "dedup";
            Box::new(if is_dedup { stage.clone().of_version(1) } else { stage.clone() })
        })
        .collect();
    let store = SqliteStore::open(&folder.join("swapping"))?;
    let segment = Segment::new(blueprints, watermark_settings(&pipeline), Box::new(NoTap), &store)?;
    let segment = segment.with_plans(Arc::clone(&deciding) as Arc<dyn Plans>);
    let commit = CommitSettings { every: Duration::from_secs(3_600), records_max: COMMIT };
    let mut load = Load { worker: Worker::new(segment, store, commit, Box::new(Silent))?, next: 0 };
    while load.next < ENTRIES {
        load.piece()?;
    }
    load.worker.commit()?;
    ensure!(load.worker.store().state("dedup")?.len() == ENTRIES, "not an entry for each symbol");

    let mut quiet = Vec::new();
    for _ in 0..400 {
        quiet.push(load.piece()?);
    }
    let mut swapping = Vec::new();
    for swap in 1..=SWAPS {
        deciding.wanted.store(swap, Ordering::Release);
        let before = swapping.len();
        while deciding.pauses.lock().unwrap_or_else(PoisonError::into_inner).len() < swap as usize {
            swapping.push(load.piece()?);
            let wrong = deciding.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone();
            ensure!(wrong.is_empty(), "{wrong:?}");
            ensure!(swapping.len() < before + 20_000, "it does not take over");
        }
    }
    let pauses = deciding.pauses.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let [half, most, longest] = quantiles(pauses);
    let ([_, swapping_most, swapping_longest], [_, quiet_most, quiet_longest]) =
        (quantiles(swapping), quantiles(quiet));
    Ok(Pauses {
        entries: ENTRIES,
        pause_ms: [half, most, longest],
        swapping_ms: [swapping_most, swapping_longest],
        quiet_ms: [quiet_most, quiet_longest],
    })
}

/// A worker, and what it is given.
struct Load {
    worker: Worker<SqliteStore>,
    next: usize,
}

impl Load {
    /// Gives it the next trades, each of the next symbol; how long they took.
    fn piece(&mut self) -> Result<Duration> {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for at in self.next..self.next + PIECE {
            let (symbol, second) = (at % ENTRIES, START + (at / 100_000) as u64);
            let line = format!(
                r#"{{"kind":"trade","symbol":"S{symbol:06}","time":"{}","source":"bench","id":{at},"price":1.5,"size":1}}"#,
                tapeline_events::format_time((second * 1_000_000_000) as i64, tapeline_events::Unit::Seconds)
            );
            bytes.extend_from_slice(line.as_bytes());
            ends.push(bytes.len() as u32);
        }
        self.next += PIECE;
        let frames = Frames { names: Vec::new(), format: "events".to_owned(), received: Vec::new(), ends, bytes };
        let work = Work::Frames { frames, origin: Origin::default() };
        let began = Instant::now();
        self.worker.take(work, Step::Journal(self.next as u64))?;
        Ok(began.elapsed())
    }
}

/// The median, the 99th of a hundred and the longest, in ms.
fn quantiles(mut times: Vec<Duration>) -> [f64; 3] {
    times.sort_unstable();
    let at = |share: f64| {
        let place = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len().max(1)) - 1;
        times.get(place).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    };
    [at(0.5), at(0.99), at(1.0)]
}
