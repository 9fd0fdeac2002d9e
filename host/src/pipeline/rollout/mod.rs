//! Which version of each stage runs: brings versions in, takes them back, and lets the workers of this host know.
//!
//! What is decided is in the [`Registry`], for all hosts. A [`Rollout`] is one host's side of it: it makes what is to run
//! ready, hands it to the workers as [`Plans`], and carries back what becomes of it. `follow.rs` does the latter on a
//! thread of its own, so that no worker ever waits for a registry; `push.rs` lets versions in; `admit.rs` looks at them.

mod admit;
mod follow;
mod places;
mod push;
mod signature;
mod start;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use self::{
    places::Tables,
    push::{Push, Pushed, Standing},
};
use super::{Components, WasmStage, now_ns, spec::Pipeline};
use crate::{
    contract::Entry,
    error::{Error, Kind, Result},
    metrics::Metrics,
    registry::{Change, Deployment, Origin, Refusal, Registry, Version, What},
    runtime::{Engine, Limits},
    segment::{Blueprint, Comparison, News, Plan, Plans, Shadow},
};

/// How often a change is made again on what others have left.
const ATTEMPTS_MAX: u32 = 100;
/// Pause before that.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(5);
/// Who does what rules do.
const BY_RULE: &str = "tapeline";

/// The states that a stage's workers have, with the watermark of each: a copy to try a version on.
pub type States = Box<dyn Fn(&str) -> Result<Vec<(Vec<Entry>, i64)>> + Send + Sync>;

/// Which version of each stage of a pipeline runs on this host. Cheap to clone.
#[derive(Clone)]
pub struct Rollout(Arc<Inner>);

/// What a rollout is made of.
pub struct RolloutParts {
    /// Compiles and runs components.
    pub engine: Engine,
    /// The pipeline.
    pub pipeline: Pipeline,
    /// The components that its file names.
    pub components: Components,
    /// Where it is decided.
    pub registry: Box<dyn Registry>,
    /// The state that stages have.
    pub states: States,
    /// Counts swaps.
    pub metrics: Metrics,
}

struct Inner {
    engine: Engine,
    pipeline: Pipeline,
    files: Components,
    registry: Box<dyn Registry>,
    states: States,
    metrics: Metrics,
    /// Tells this process from others in reports.
    host: String,
    stages: Mutex<BTreeMap<String, Known>>,
    generation: AtomicU64,
    news: mpsc::Sender<(String, Option<u32>, News)>,
    /// One upload is looked at at a time.
    admitting: Mutex<()>,
    /// Versions are made ready one after the other.
    making: Mutex<()>,
}

/// What this host knows of a stage.
struct Known {
    revision: u64,
    deployment: Deployment,
    /// Versions that are ready to run.
    made: BTreeMap<u64, Arc<WasmStage>>,
    /// What this host's workers have reported last, by partition.
    reports: BTreeMap<Option<u32>, WorkerReport>,
}

/// What a worker has to say about a stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// The host that it runs on.
    pub host: String,
    /// When it has begun, ns since the epoch.
    pub begun: i64,
    /// The version that it runs.
    pub live: u64,
    /// Since when, ns since the epoch.
    pub since: i64,
    /// The version that has proven itself in it last.
    pub proven: u64,
    /// The candidate that it compares, and since when it is one.
    pub candidate: Option<(u64, i64)>,
    /// How that compares.
    pub comparison: Comparison,
}

/// All that is known of a stage's versions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StageStatus {
    /// The stage.
    pub stage: String,
    /// What was decided.
    pub deployment: Deployment,
    /// What the worker of each partition has reported last; `all` is that of a stage that is not divided.
    pub workers: BTreeMap<String, WorkerReport>,
    /// How the candidate compares, over all workers.
    pub comparison: Option<Comparison>,
}

impl Rollout {
    /// Goes on with what was decided, or begins with the components that the pipeline file names.
    ///
    /// # Errors
    /// When the registry cannot be reached, or what is live cannot be made ready here.
    pub fn open(parts: RolloutParts) -> Result<Self> {
        let RolloutParts { engine, pipeline, components, registry, states, metrics } = parts;
        let (news, reported) = mpsc::channel();
        let rollout = Self(Arc::new(Inner {
            engine,
            pipeline,
            files: components,
            registry,
            states,
            metrics,
            host: format!("{:016x}", rand_host()),
            stages: Mutex::default(),
            generation: AtomicU64::new(1),
            news,
            admitting: Mutex::default(),
            making: Mutex::default(),
        }));
        for index in 0..rollout.0.pipeline.stages.len() {
            rollout.begin(index)?;
        }
        let inner = Arc::downgrade(&rollout.0);
        thread::spawn(move || follow::follow(&inner, &reported));
        Ok(rollout)
    }

    /// What each stage begins with on this host, in the order of the pipeline.
    pub fn blueprints(&self) -> Vec<WasmStage> {
        self.0.pipeline.stages.iter().filter_map(|stage| self.starting(&stage.name)).collect()
    }

    /// The live version of each stage, in the order of the pipeline.
    pub fn live(&self) -> Vec<WasmStage> {
        let known = self.known();
        let live = |known: &Known| known.made.get(&known.deployment.live).map(|stage| WasmStage::clone(stage));
        self.0.pipeline.stages.iter().filter_map(|stage| live(known.get(&stage.name)?)).collect()
    }

    /// The live version of a stage.
    pub fn live_of(&self, stage: &str) -> Option<Arc<WasmStage>> {
        let known = self.known();
        let known = known.get(stage)?;
        known.made.get(&known.deployment.live).cloned()
    }

    /// All that is known of a stage's versions.
    ///
    /// # Errors
    /// `NotFound` for a stage that is not there; `Unavailable` when the registry cannot be reached.
    pub fn status(&self, stage: &str) -> Result<StageStatus> {
        self.check_stage(stage)?;
        let deployment = self.known().get(stage).map(|known| known.deployment.clone()).unwrap_or_default();
        let workers = self.workers(stage)?;
        let comparison = deployment.shadow.map(|(version, _)| merge(&deployment, version, &workers));
        Ok(StageStatus { stage: stage.to_owned(), deployment, workers, comparison })
    }

    /// The names of the stages, in the order of the data.
    pub fn stages(&self) -> Vec<String> {
        self.0.pipeline.stages.iter().map(|stage| stage.name.clone()).collect()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.0.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_stage(&self, stage: &str) -> Result<usize> {
        let stages = self.stages();
        let found = stages.iter().position(|name| name == stage);
        found.ok_or_else(|| Error::not_found(format!("find stage {stage:?}: there are {}", stages.join(", "))))
    }

    /// What workers have reported: those of this host as they have it, others as they have stored it.
    fn workers(&self, stage: &str) -> Result<BTreeMap<String, WorkerReport>> {
        let mut workers = BTreeMap::new();
        for (worker, report) in self.0.registry.reports(stage)? {
            // One of another version of this program says what cannot be read here.
            if let Ok(report) = serde_json::from_str(&report) {
                workers.insert(worker, report);
            }
        }
        if let Some(known) = self.known().get(stage) {
            for (partition, report) in &known.reports {
                let worker = Self::worker(*partition);
                // Another host may have begun to work on it since.
                if workers.get(&worker).is_none_or(|stored: &WorkerReport| stored.begun <= report.begun) {
                    workers.insert(worker, report.clone());
                }
            }
        }
        Ok(workers)
    }

    /// What a worker is called in reports: by its partition, so that the one that takes it over takes its report's place.
    fn worker(partition: Option<u32>) -> String {
        partition.map_or_else(|| "all".to_owned(), |partition| partition.to_string())
    }

    /// Changes a deployment, as often as it takes until nobody else has changed it meanwhile.
    fn change<T>(&self, stage: &str, mut change: impl FnMut(&mut Deployment) -> Result<T, Refusal>) -> Result<T> {
        for _ in 0..ATTEMPTS_MAX {
            let (revision, mut deployment) = self.0.registry.deployment(stage)?.unwrap_or_default();
            let before = deployment.clone();
            let given = change(&mut deployment).map_err(|refusal| refused(stage, &refusal))?;
            if deployment == before {
                return Ok(given);
            }
            match self.0.registry.put_deployment(stage, revision, &deployment) {
                Ok(_) => {
                    self.refresh(stage)?;
                    return Ok(given);
                }
                Err(error) if error.kind() == Kind::Conflict => thread::sleep(ATTEMPT_PAUSE),
                Err(error) => return Err(error),
            }
        }
        let message = format!("change the deployment of stage {stage}: others change it all the time");
        Err(Error::new(Kind::Unavailable, message))
    }

    /// Takes over what was decided, and makes ready what is to run.
    fn refresh(&self, stage: &str) -> Result<()> {
        let _one = self.0.making.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((revision, deployment)) = self.0.registry.deployment(stage)? else { return Ok(()) };
        let (before, shadow) = (deployment.before, deployment.shadow);
        let needed = [Some(deployment.live), before.map(|(number, _)| number), shadow.map(|(number, _)| number)];
        let mut made = BTreeMap::new();
        for number in needed.into_iter().flatten().filter(|number| *number != 0) {
            let ready = self.known().get(stage).and_then(|known| known.made.get(&number).cloned());
            let ready = match ready {
                Some(ready) => ready,
                None => Arc::new(self.make(stage, &deployment, number)?),
            };
            made.insert(number, ready);
        }
        let mut known = self.known();
        match known.get_mut(stage) {
            Some(known) if known.revision >= revision => {}
            Some(known) => {
                (known.revision, known.deployment, known.made) = (revision, deployment, made);
                self.0.generation.fetch_add(1, Ordering::AcqRel);
            }
            None => {
                known.insert(stage.to_owned(), Known { revision, deployment, made, reports: BTreeMap::new() });
            }
        }
        Ok(())
    }

    fn make(&self, stage: &str, deployment: &Deployment, number: u64) -> Result<WasmStage> {
        let missing = || Error::not_found(format!("find version {number} of stage {stage}"));
        let version = deployment.version(number).ok_or_else(missing)?;
        let index = self.check_stage(stage)?;
        let file = self.0.files.stages.get(index).map(WasmStage::component);
        let component = match file.filter(|file| *file.digest == *version.digest) {
            Some(component) => component.clone(),
            None => {
                let bytes = self.0.registry.component(&version.digest)?;
                if version.origin == Origin::Upload {
                    // Also when another host has let it in, or it came before there were keys.
                    signature::check(&self.0.pipeline.swap.trusted_keys, &bytes, version.signature.as_deref())?;
                }
                self.0.engine.prepare_foreign(&bytes, &self.0.pipeline.swap.compile)?
            }
        };
        Ok(self.stage_of(index, component, version).of_version(number))
    }

    fn stage_of(&self, index: usize, component: crate::runtime::Component, version: &Version) -> WasmStage {
        let spec = &self.0.pipeline.stages[index];
        let limits = Limits {
            memory_bytes_max: version.memory_mib.map_or(spec.limits.memory_bytes_max, |mib| (mib << 20) as usize),
            call_time_max: version.batch_ms.map_or(spec.limits.call_time_max, Duration::from_millis),
            ..spec.limits
        };
        let settings = version.settings.as_deref().unwrap_or(&spec.settings);
        WasmStage::new(&spec.name, component, settings, limits)
    }
}

impl Plans for Rollout {
    fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    fn plan(&self, stage: &str) -> Option<Plan> {
        let known = self.known();
        let Known { deployment, made, .. } = known.get(stage)?;
        let ready = |number: u64| made.get(&number).map(|stage| Arc::clone(stage) as Arc<dyn Blueprint>);
        let shadow = deployment.shadow.and_then(|(number, rule)| {
            Some(Shadow { blueprint: ready(number)?, differences_max: rule.differences_max })
        });
        Some(Plan { live: ready(deployment.live)?, probation: deployment.before.map(|(_, rule)| rule.into()), shadow })
    }

    fn report(&self, stage: &str, partition: Option<u32>, news: News) {
        // It ends with this.
        let _ = self.0.news.send((stage.to_owned(), partition, news));
    }
}

/// How a candidate compares, over all workers that have compared it since it is one.
fn merge(deployment: &Deployment, version: u64, workers: &BTreeMap<String, WorkerReport>) -> Comparison {
    let began = shadow_began(deployment, version);
    let mut merged = Comparison::default();
    for report in workers.values().filter(|report| report.candidate == Some((version, began))) {
        merged.add(&report.comparison);
    }
    merged
}

/// Since when a version is the candidate.
fn shadow_began(deployment: &Deployment, version: u64) -> i64 {
    let is_begin = |logged: &&crate::registry::Logged| logged.what == What::Shadow && logged.version == version;
    deployment.log.iter().rev().find(is_begin).map_or(0, |logged| logged.at)
}

fn by_rule(why: impl Into<String>) -> Change {
    Change { at: now_ns(), by: BY_RULE.to_owned(), why: why.into() }
}

fn refused(stage: &str, refusal: &Refusal) -> Error {
    let kind = match refusal {
        Refusal::NoVersion(..) => Kind::NotFound,
        Refusal::NotNow(_) => Kind::Conflict,
    };
    Error::new(kind, format!("change stage {stage}: {refusal}"))
}

/// A number that no other process has: of the time and the process, since nothing but a name depends on it.
fn rand_host() -> u64 {
    xxhash_rust::xxh3::xxh3_64(format!("{} {}", now_ns(), std::process::id()).as_bytes())
}
