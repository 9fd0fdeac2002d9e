//! Runs pipelines: from a pipeline file to a worker that reads, processes and commits.

mod blueprint;
mod chain;
mod hub;
mod invoke;
mod job;
mod journal;
mod live;
pub mod replay;
mod rollout;
pub mod spec;
mod worker;

pub use blueprint::{Components, WasmStage};
use chain::Unobserved;
pub use chain::{Chain, Workers, event_lines, hops, stream_settings};
pub use hub::{Hub, Subscription};
pub use invoke::{InvokeError, InvokeOptions, Invoked, Invoker};
pub use job::{Job, JobInput, ProgressFn, Summary};
pub(crate) use live::now_ns;
pub use live::{BACKLOG_RECORDS_MAX, Ingest, IngestError, Live, LiveOptions};
pub use rollout::{Push, Pushed, Rollout, RolloutParts, StageStatus, Standing, States, Tables, WorkerReport};
pub use worker::{CommitSettings, Committed, Observer, Step, Worker};

use crate::segment::{Blueprint, WatermarkSettings};

/// How the watermark of a pipeline follows event time.
pub fn watermark_settings(pipeline: &spec::Pipeline) -> WatermarkSettings {
    let spec = &pipeline.watermark;
    WatermarkSettings { delay: spec.delay_ns, every: spec.every_ns, max_future: spec.max_future_ns }
}

/// When a pipeline's worker commits.
pub fn commit_settings(pipeline: &spec::Pipeline) -> CommitSettings {
    let records_max = usize::try_from(pipeline.commit.records).unwrap_or(usize::MAX);
    CommitSettings { every: pipeline.commit.every, records_max }
}

/// Stages as a segment takes them.
fn boxed(stages: Vec<WasmStage>) -> Vec<Box<dyn Blueprint>> {
    stages.into_iter().map(|stage| Box::new(stage) as Box<dyn Blueprint>).collect()
}
