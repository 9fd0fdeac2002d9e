//! Where a rollout is decided, and where states are: in the data folder, or on a broker.

use std::path::{Path, PathBuf};

use super::{Rollout, RolloutParts, States};
use crate::{
    bus::nats::{Broker, NatsRegistry, NatsState},
    contract::Entry,
    error::Result,
    metrics::Metrics,
    pipeline::{Components, chain::partition_hop, spec::Pipeline},
    runtime::Engine,
    store::{AwsStores, SqliteRegistry, SqliteStore, StateStore as _},
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

    /// The rollout of a chained pipeline, whose last segment writes to these tables.
    ///
    /// # Errors
    /// As [`Rollout::open`]; `Invalid` when the broker is not fit for a chain.
    pub fn chained(
        engine: &Engine,
        pipeline: &Pipeline,
        components: Components,
        broker: &Broker,
        tables: Tables,
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
            states: chained_states(pipeline.clone(), broker.clone(), tables),
            metrics: metrics.clone(),
        })
    }
}

fn stored_state(folder: &Path, stage: &str) -> Result<Vec<(Vec<Entry>, i64)>> {
    let store = SqliteStore::open_reader(folder)?;
    Ok(vec![(store.state(stage)?, store.progress()?.watermark)])
}

/// Where the last segment of a chain writes to.
pub enum Tables {
    /// To a data folder of this host.
    Here(PathBuf),
    /// To a store that hosts share.
    Shared(AwsStores),
    /// To a data folder of another host.
    Elsewhere,
}

/// The states of a stage's partitions. Those of the last segment are with the tables; where these are another host's, no
/// version is tried on them.
fn chained_states(pipeline: Pipeline, broker: Broker, tables: Tables) -> States {
    Box::new(move |stage| {
        let at = pipeline.stages.iter().position(|known| known.name == stage);
        let is_last = pipeline.nats.segments.last().is_some_and(|last| at.is_some_and(|at| last.contains(&at)));
        let is_first = pipeline.stages.first().is_some_and(|first| first.name == stage);
        let partitions = 0..pipeline.nats.partitions;
        match &tables {
            _ if is_first => Ok(Vec::new()),
            Tables::Here(folder) if is_last => stored_state(folder, stage),
            Tables::Shared(stores) if is_last => {
                partitions.map(|partition| shared_state(stores, partition, stage)).collect()
            }
            Tables::Elsewhere if is_last => Ok(Vec::new()),
            _ => {
                let hop = partition_hop(&pipeline, stage);
                partitions.map(|partition| NatsState::peek(&broker, &hop, &partition.to_string(), stage)).collect()
            }
        }
    })
}

fn shared_state(stores: &AwsStores, partition: u32, stage: &str) -> Result<(Vec<Entry>, i64)> {
    let (progress, state) = stores.read(partition)?;
    let entries = state.into_iter().find(|(of, _)| of == stage).map(|(_, entries)| entries);
    Ok((entries.unwrap_or_default(), progress.watermark))
}
