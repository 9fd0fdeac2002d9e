//! What `tapeline up` runs: a pipeline, or stages of one whose ends are on another host.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::task;

use crate::{
    error::{Error, Kind, Result},
    metrics::Metrics,
    pipeline::{Chain, Hub, Invoker, Live, LiveOptions, Rollout, Workers, spec::Pipeline},
    store::StateStore as _,
    trigger::http::{Admin, AdminToken, Api, ApiParts, Elsewhere, Readiness},
};

/// How often it is looked whether it has failed.
const LOOK: Duration = Duration::from_millis(200);

/// What is served beside what runs.
pub(super) struct Served {
    /// Which versions run.
    pub(super) rollout: Rollout,
    /// What those show who may change that; nobody may without one.
    pub(super) token: Option<AdminToken>,
    /// The data folder.
    pub(super) folder: PathBuf,
    /// The stack on AWS that has the tables, where they are not in the folder.
    pub(super) stack: Option<String>,
    /// What is counted.
    pub(super) metrics: Metrics,
}

/// What runs until it is drained. Cheap to clone.
#[derive(Clone)]
pub(super) struct Running(Arc<Mutex<Option<Work>>>);

enum Work {
    Pipeline(Live),
    Stages(Box<Workers>),
}

/// Starts a pipeline.
///
/// # Errors
/// When a stage does not start or the store cannot be read.
pub(super) fn start_live(options: LiveOptions, served: Served) -> Result<(Running, Api)> {
    let Served { rollout, token, folder, stack, metrics } = served;
    metrics.start_at(options.store.progress()?.watermark);
    let name = options.pipeline.name.clone();
    let invokers = invokers(&rollout);
    let live = Live::start(options)?;
    let (intake, hub) = (Box::new(live.ingest()), live.hub());
    let running = Running::new(Work::Pipeline(live));
    let readiness = running.readiness_fn();
    let admin = token.map(|token| Admin { token, rollout: rollout.clone() });
    let parts = ApiParts {
        pipeline: name,
        invokers,
        intake,
        hub,
        folder,
        stack,
        metrics,
        readiness,
        rollout: Some(rollout),
        admin,
    };
    Ok((running, Api::new(parts)))
}

/// Starts stages between the first and the last.
///
/// # Errors
/// When the broker refuses them.
pub(super) fn start_work(
    pipeline: &Pipeline,
    chain: Chain,
    stages: Vec<String>,
    served: Served,
) -> Result<(Running, Api)> {
    let Served { rollout, token, folder, stack, metrics } = served;
    let hub = Hub::new(&pipeline.name, pipeline.stages.iter().map(|stage| stage.name.clone()).collect());
    let workers = chain.start(&stages)?;
    chain.show_in(&hub);
    let invokers = invokers(&rollout);
    let running = Running::new(Work::Stages(Box::new(workers)));
    let (intake, readiness) = (Box::new(Elsewhere), running.readiness_fn());
    let admin = token.map(|token| Admin { token, rollout: rollout.clone() });
    let pipeline = pipeline.name.clone();
    let parts =
        ApiParts { pipeline, invokers, intake, hub, folder, stack, metrics, readiness, rollout: Some(rollout), admin };
    Ok((running, Api::new(parts)))
}

fn invokers(rollout: &Rollout) -> Vec<Invoker> {
    rollout.live().into_iter().map(|stage| Invoker::of_live(rollout.clone(), stage)).collect()
}

impl Running {
    fn new(work: Work) -> Self {
        Self(Arc::new(Mutex::new(Some(work))))
    }

    fn look<T>(&self, look: impl FnOnce(Option<&Work>) -> T) -> T {
        look(self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref())
    }

    fn readiness_fn(&self) -> Box<dyn Fn() -> Readiness + Send + Sync> {
        let running = self.clone();
        Box::new(move || running.look(|work| work.map_or_else(stopping, Work::readiness)))
    }

    /// Is done when it has stopped by itself, which it does only when it fails.
    pub(super) async fn failed(&self) {
        while !self.look(|work| work.is_none_or(Work::has_stopped)) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Lets it finish what it has taken.
    ///
    /// # Errors
    /// What had stopped it before.
    pub(super) async fn drain(&self) -> Result<()> {
        let work = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let drained = task::spawn_blocking(|| work.map_or(Ok(()), Work::drain)).await;
        drained.map_err(|error| Error::caused(Kind::Internal, "finish what was taken", error))?
    }
}

impl Work {
    fn readiness(&self) -> Readiness {
        let live = match self {
            Self::Pipeline(live) => live,
            Self::Stages(workers) if workers.is_stopping() => return stopping(),
            Self::Stages(..) => return Readiness::default(),
        };
        let not_ready = match live.stopped() {
            Some(Some(error)) => Some(format!("the pipeline has failed to {error}")),
            Some(None) => return stopping(),
            None if live.is_ready() => None,
            None => Some("the pipeline has not caught up with its journal yet".to_owned()),
        };
        Readiness { not_ready, waiting: live.waiting() }
    }

    fn has_stopped(&self) -> bool {
        match self {
            Self::Pipeline(live) => live.stopped().is_some(),
            Self::Stages(workers) => workers.is_stopping(),
        }
    }

    fn drain(self) -> Result<()> {
        match self {
            Self::Pipeline(live) => live.drain(),
            Self::Stages(workers) => workers.stop(),
        }
    }
}

fn stopping() -> Readiness {
    Readiness { not_ready: Some("the pipeline stops".to_owned()), waiting: 0 }
}
