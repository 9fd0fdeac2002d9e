//! What is done when a stage has failed: which version, or which record, is to blame. Each step of it is a commit, so that a
//! call that runs out of time loses none.

use std::collections::BTreeMap;

use tapeline_runtime::{Component, Fault};
use tapeline_state::Root;

use super::{Function, Job, Undone};
use crate::{
    components::ComponentError,
    position::{Position, Runs},
    work::Work,
};

/// Bytes of the reason why a record is put aside.
const REASON_BYTES_MAX: usize = 2_000;

/// A stage that has failed.
pub(super) struct Blamed {
    /// Its place in the chain.
    pub(super) at: usize,
    pub(super) fault: Fault,
    /// It has not started, or does not take its settings or state: it is no fault of a record.
    pub(super) is_start: bool,
}

impl Function {
    /// A stage has failed. A version on trial is taken back if the one before it does not fail; else half of the part is
    /// tried; or what is to blame is put aside. Gives what is committed then.
    pub(super) async fn blame(
        &mut self,
        before: &Root<Position>,
        job: &Job<'_>,
        components: &[Component],
        part: &Work,
        Blamed { at, fault, is_start }: Blamed,
    ) -> Result<Root<Position>, Undone> {
        let settings = self.settings.stages.get(at).cloned().expect("a stage of this function is to blame");
        let runs = before.meta.runs.get(&settings.name);
        if let Some(back) = runs.and_then(Runs::rolled_back) {
            // That it cannot be asked now does not say that it would fail.
            let loaded = match self.components.load(&back.digest, &settings.component).await {
                Err(error @ ComponentError::Unavailable(_)) => return Err(error.into()),
                loaded => loaded.ok(),
            };
            if let Some(component) = loaded {
                let mut components = components.to_vec();
                components.splice(at..=at, [component]);
                if self.run(before, job, &components, part, &BTreeMap::new()).await?.is_ok() {
                    let (stage, partition) = (settings.name, job.partition);
                    let (refused, digest) = (&back.refused, &back.digest);
                    tracing::error!(stage, partition, %fault, refused, digest, "rolled back");
                    let mut meta = before.meta.clone();
                    meta.runs.insert(stage, back);
                    return self.decide(partition, before, meta).await;
                }
            }
        }
        if is_start {
            return Err(Undone::Stage { stage: settings.name, fault });
        }
        self.narrow(before, job, part, at, &fault).await
    }

    /// Half of a part is to be tried next; or it is one record, which is to be put aside.
    pub(super) async fn narrow(
        &self,
        before: &Root<Position>,
        job: &Job<'_>,
        part: &Work,
        at: usize,
        fault: &Fault,
    ) -> Result<Root<Position>, Undone> {
        let stage = self.settings.stages.get(at).map_or("", |stage| &stage.name);
        let mut partial = before.meta.partial_of(&job.producer, job.number);
        if part.len() > 1 {
            tracing::warn!(stage, %fault, records = part.len(), "a stage has failed; half of it is tried");
            partial.span = u32::try_from(part.len() / 2).unwrap_or(u32::MAX);
        } else {
            tracing::error!(stage, %fault, "a record is put aside");
            partial.span = 1;
            let mut reason = fault.to_string();
            reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
            partial.aside.insert(u32::try_from(at).unwrap_or_default(), reason);
        }
        let meta = Position { partial: Some(partial), ..before.meta.clone() };
        self.decide(job.partition, before, meta).await
    }
}
