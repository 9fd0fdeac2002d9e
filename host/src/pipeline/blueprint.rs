//! Stages of a pipeline file made from components.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::spec::Pipeline;
use crate::{
    contract::Description,
    error::{Error, Result},
    runtime::{Component, Engine, Fault, Instance, Limits, WasmInstance, instantiate},
    segment::{Blueprint, Role},
};

/// A stage made from a component, with its settings and limits.
#[derive(Clone)]
pub struct WasmStage {
    name: Arc<str>,
    component: Component,
    settings: Arc<str>,
    limits: Limits,
    version: u64,
}

impl WasmStage {
    /// A stage of this name.
    pub fn new(name: &str, component: Component, settings: &str, limits: Limits) -> Self {
        Self { name: name.into(), component, settings: settings.into(), limits, version: 0 }
    }

    /// The same as a version of this number.
    pub const fn of_version(mut self, version: u64) -> Self {
        self.version = version;
        self
    }

    /// What it may use.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Its component.
    pub const fn component(&self) -> &Component {
        &self.component
    }

    /// The same component with other settings.
    pub fn with_settings(&self, settings: &str) -> Self {
        Self { settings: settings.into(), ..self.clone() }
    }

    /// Makes an instance for a caller that waits for it without blocking its thread.
    ///
    /// # Errors
    /// When it does not start, or refuses the settings.
    pub async fn instantiate_async(&self) -> Result<WasmInstance, Fault> {
        WasmInstance::new(&self.component, &self.limits, &self.settings).await
    }
}

impl Blueprint for WasmStage {
    fn name(&self) -> &str {
        &self.name
    }

    fn role(&self) -> Role {
        self.component.role()
    }

    fn digest(&self) -> &str {
        &self.component.digest
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn settings(&self) -> &str {
        &self.settings
    }

    fn call_time_max(&self) -> Duration {
        self.limits.call_time_max
    }

    fn instantiate(&self) -> Result<Box<dyn Instance>, Fault> {
        Ok(Box::new(instantiate(&self.component, &self.limits, &self.settings)?))
    }
}

/// The components of a pipeline, loaded and checked.
#[derive(Clone)]
pub struct Components {
    /// In the order of the pipeline file.
    pub stages: Vec<WasmStage>,
    /// What each says of itself, in the same order.
    pub descriptions: Vec<Description>,
    /// Where each was found, in the same order.
    pub paths: Vec<PathBuf>,
}

impl Components {
    /// Loads the components of a pipeline and tries each with its settings.
    ///
    /// # Errors
    /// Names the stage, and for a setting the file and line, with what would be right.
    pub fn load(engine: &Engine, pipeline: &Pipeline, folder: Option<&Path>) -> Result<Self> {
        let mut stages = Vec::new();
        let (mut descriptions, mut paths) = (Vec::new(), Vec::new());
        for (index, spec) in pipeline.stages.iter().enumerate() {
            let path = pipeline.resolve_component(spec, folder)?;
            let component = engine.load(&path)?;
            paths.push(path);
            let stage = WasmStage::new(&spec.name, component, &spec.settings, spec.limits);
            descriptions.push(describe(&stage, pipeline, index)?);
            stages.push(stage);
        }
        Ok(Self { stages, descriptions, paths })
    }

    /// The stage of this name.
    pub fn stage(&self, name: &str) -> Option<&WasmStage> {
        self.stages.iter().find(|stage| &*stage.name == name)
    }

    /// What a worker makes its stages from.
    pub fn blueprints(&self) -> Vec<Box<dyn Blueprint>> {
        self.stages.iter().map(|stage| Box::new(stage.clone()) as Box<dyn Blueprint>).collect()
    }
}

/// What a stage says of itself, or why it does not start, with the place in the pipeline file.
pub(super) fn describe(stage: &WasmStage, pipeline: &Pipeline, index: usize) -> Result<Description> {
    let failed = |fault: Fault| match fault {
        Fault::Settings(error) => pipeline.setting_error(index, &error.key, &error.value, &error.expected),
        fault => Error::caused(crate::error::Kind::Invalid, format!("start stage {}", stage.name()), fault),
    };
    stage.instantiate().and_then(|mut instance| instance.describe()).map_err(failed)
}
