//! Where a rollout is decided, and where states are: in the data folder, or on a broker.

use std::path::{Path, PathBuf};

use super::{Rollout, RolloutParts, States};
use crate::{
    bus::nats::{Broker, NatsRegistry, NatsState},
    error::Result,
    metrics::Metrics,
    pipeline::{Components, chain::partition_hop, spec::Pipeline},
    runtime::Engine,
    store::{SqliteRegistry, SqliteStore, StateStore as _},
};

impl Rollout {
    /// The rollout of a pipeline in one process, on a data folder whose store is there.
    ///
    /// # Errors
    /// As [`Rollout::open`].
    pub fn embedded(
        engine: &Engine,
        pipeline: &Pipeline,
        components: Components,
        folder: &Path,
        metrics: &Metrics,
    ) -> Result<Self> {
        let registry = Box::new(SqliteRegistry::open(folder)?);
        let folder = folder.to_owned();
        Self::open(RolloutParts {
            engine: engine.clone(),
            pipeline: pipeline.clone(),
            components,
            registry,
            states: Box::new(move |stage| stored_state(&folder, stage)),
            metrics: metrics.clone(),
        })
    }

    /// The rollout of a chained pipeline. `folder` has the tables, on the host where they are.
    ///
    /// # Errors
    /// As [`Rollout::open`]; `Invalid` when the broker is not fit for a chain.
    pub fn chained(
        engine: &Engine,
        pipeline: &Pipeline,
        components: Components,
        broker: &Broker,
        folder: Option<PathBuf>,
        metrics: &Metrics,
    ) -> Result<Self> {
        broker.refuse_unfit()?;
        let bytes_max = i64::try_from(pipeline.swap.components_bytes_max).unwrap_or(i64::MAX);
        let registry = Box::new(NatsRegistry::open(broker, &pipeline.name, pipeline.nats.replicas, bytes_max)?);
        Self::open(RolloutParts {
            engine: engine.clone(),
            pipeline: pipeline.clone(),
            components,
            registry,
            states: chained_states(pipeline.clone(), broker.clone(), folder),
            metrics: metrics.clone(),
        })
    }
}

fn stored_state(folder: &Path, stage: &str) -> Result<Vec<(Vec<crate::contract::Entry>, i64)>> {
    let store = SqliteStore::open_reader(folder)?;
    Ok(vec![(store.state(stage)?, store.progress()?.watermark)])
}

/// The states of a stage's partitions. Those of the last stage are with the tables; another host does not try a version
/// on them.
fn chained_states(pipeline: Pipeline, broker: Broker, folder: Option<PathBuf>) -> States {
    Box::new(move |stage| {
        let is_last = pipeline.stages.last().is_some_and(|last| last.name == stage);
        let is_first = pipeline.stages.first().is_some_and(|first| first.name == stage);
        match &folder {
            _ if is_first => Ok(Vec::new()),
            Some(folder) if is_last => stored_state(folder, stage),
            None if is_last => Ok(Vec::new()),
            _ => {
                let hop = partition_hop(&pipeline, stage);
                let partitions = 0..pipeline.nats.partitions;
                partitions.map(|partition| NatsState::peek(&broker, &hop, &partition.to_string(), stage)).collect()
            }
        }
    })
}
