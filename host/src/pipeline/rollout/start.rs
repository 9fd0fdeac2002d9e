//! What a host begins with.

use std::{ops::Range, sync::Arc};

use super::{Rollout, WasmStage, by_rule};
use crate::{
    error::{Context as _, Result},
    pipeline::boxed,
    registry::{Deployment, Origin, Version},
    runtime::COMPONENT_BYTES_MAX,
    segment::{Blueprint, Segment},
};

/// Why a version is there that nobody has uploaded.
const NAMED: &str = "the pipeline file names it";

impl Rollout {
    /// Goes on with the deployment of a stage, or begins one.
    ///
    /// What was uploaded stays live. Otherwise the component that the pipeline file names is: in the data folder of one
    /// process always, on a broker only when no host has brought it before, since one that comes back with an old file
    /// must not undo what was decided meanwhile.
    pub(super) fn begin(&self, index: usize) -> Result<()> {
        let Some(stage) = self.0.files.stages.get(index) else { return Ok(()) };
        let name = stage.name().to_owned();
        let file = self.version_of_file(index);
        if let Some((_, deployment)) = self.0.registry.deployment(&name)?
            && !self.is_wanted(&deployment, &file)
        {
            if deployment.live_version().is_some_and(|live| live.digest != file.digest) {
                let live = deployment.live;
                tracing::warn!(stage = name, live, "what was brought in runs, not the component of the pipeline file");
            }
            return self.refresh(&name).doing(|| format!("go on with stage {name}"));
        }
        let path = self.0.files.paths.get(index).cloned().unwrap_or_default();
        let bytes = std::fs::read(&path).doing(|| format!("read {}", path.display()))?;
        debug_assert!(bytes.len() as u64 <= COMPONENT_BYTES_MAX, "it was loaded");
        self.0.registry.put_component(&file.digest, &bytes)?;
        self.change(&name, |deployment| {
            if self.is_wanted(deployment, &file) {
                let number = deployment.add(file.clone(), &by_rule(NAMED))?;
                deployment.go_live(number, None, &by_rule(NAMED));
            }
            Ok(())
        })?;
        self.refresh(&name)
    }

    fn is_wanted(&self, deployment: &Deployment, file: &Version) -> bool {
        let Some(live) = deployment.live_version() else { return true };
        let is_known = deployment.versions.iter().any(|version| version.digest == file.digest);
        live.origin == Origin::File && live.digest != file.digest && !(is_known && self.0.registry.is_shared())
    }

    fn version_of_file(&self, index: usize) -> Version {
        let component = self.0.files.stages[index].component();
        let description = &self.0.files.descriptions[index];
        Version {
            number: 0,
            digest: component.digest.to_string(),
            bytes: component.bytes,
            origin: Origin::File,
            name: description.name.clone(),
            semver: description.version.clone(),
            state_version: description.state_version,
            imports: component.imports.to_vec(),
            settings: None,
            memory_mib: None,
            batch_ms: None,
            by: super::BY_RULE.to_owned(),
            why: NAMED.to_owned(),
            at: super::now_ns(),
            signature: None,
            signed_by: None,
            is_allowed: true,
        }
    }

    /// What a worker begins with: the version before the live one, as long as that must prove itself beside it. One that
    /// could not read what the live one has written is not begun with; nothing stands in for the live one then.
    pub(super) fn starting(&self, stage: &str) -> Option<WasmStage> {
        let known = self.known();
        let known = known.get(stage)?;
        let deployment = &known.deployment;
        let live = deployment.live_version()?;
        let before = deployment.before.and_then(|(before, _)| deployment.version(before));
        let number = match before {
            Some(before) if before.state_version >= live.state_version => before.number,
            _ => live.number,
        };
        known.made.get(&number).map(|stage| WasmStage::clone(stage))
    }

    /// Makes a segment of some stages, which follows this rollout: with what each is to begin with or, where that does not
    /// take the state that there is, with what is live.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn segment(
        &self,
        stages: Range<usize>,
        make: impl Fn(Vec<Box<dyn Blueprint>>) -> Result<Segment>,
    ) -> Result<Segment> {
        let part = |all: Vec<WasmStage>| boxed(all.get(stages.clone()).unwrap_or_default().to_vec());
        let (starting, live) = (self.blueprints(), self.live());
        let versions = |all: &[WasmStage]| all.iter().map(Blueprint::version).collect::<Vec<_>>();
        let is_same = versions(&starting) == versions(&live);
        let made = match make(part(starting)) {
            Err(error) if !is_same => {
                let error = crate::pipeline::job::error_text(&error);
                tracing::warn!(error, "the version before cannot go on from what the live one has written");
                make(part(live))
            }
            made => made,
        };
        Ok(made?.with_plans(Arc::new(self.clone())))
    }
}
