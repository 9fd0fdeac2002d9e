//! What people do to versions: bring them in, approve, promote, throw out, take back and forget them.

use std::sync::PoisonError;

use serde::{Deserialize, Serialize};

use super::{Rollout, now_ns};
use crate::{
    error::Result,
    registry::{Change, Deployment, Origin, ProbationRule, Refusal, Version, Way},
};

/// An upload, but for its bytes.
#[derive(Clone, Debug)]
pub struct Push {
    /// How it is brought in.
    pub way: Way,
    /// Its settings, a JSON object; absent: those of the pipeline file, as for the limits.
    pub settings: Option<String>,
    /// MiB of memory that it may use.
    pub memory_mib: Option<u64>,
    /// Milliseconds that it may take for a batch.
    pub batch_ms: Option<u64>,
    /// A signature of minisign over the component: the whole text.
    pub signature: Option<String>,
    /// Who brings it.
    pub by: String,
    /// Why.
    pub why: String,
}

/// Where a version stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It takes the place of the live one at the workers' next commits.
    Live,
    /// It runs beside the live one.
    Shadow,
    /// It waits for approval.
    Pending,
}

/// What became of an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// The stage.
    pub stage: String,
    /// Number of the version.
    pub version: u64,
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// Where it stands.
    pub standing: Standing,
    /// What it wants beyond what the live version has.
    pub wants: Vec<String>,
    /// What else whoever brought it should know.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Rollout {
    /// Brings a component in: looks at it, keeps it, and lets it go live or beside, or wait for approval. Takes seconds.
    ///
    /// # Errors
    /// `NotFound` for an unknown stage; `Invalid` when the component is refused: nothing has changed then.
    pub fn push(&self, stage: &str, bytes: &[u8], push: &Push) -> Result<Pushed> {
        let admitted = {
            let _one = self.0.admitting.lock().unwrap_or_else(PoisonError::into_inner);
            self.admit(stage, bytes, push)?
        };
        let version = admitted.version;
        self.0.registry.put_component(&version.digest, bytes)?;
        let change = Change { at: now_ns(), by: push.by.clone(), why: push.why.clone() };
        let (number, standing, mut notes) = self.change(stage, |deployment| {
            let number = deployment.add(version.clone(), &change)?;
            if !admitted.wants.is_empty() && !deployment.is_allowed(number) {
                deployment.wait(number, push.way, admitted.wants.clone(), &change);
                return Ok((number, Standing::Pending, Vec::new()));
            }
            let notes = notes(deployment, number, push.way);
            Ok((number, self.bring_in(deployment, number, push.way, &change)?, notes))
        })?;
        notes.extend(admitted.notes);
        tracing::info!(stage, version = number, digest = version.digest, by = push.by, ?standing, "a version came in");
        let (stage, digest) = (stage.to_owned(), version.digest);
        let wants = if standing == Standing::Pending { admitted.wants } else { Vec::new() };
        Ok(Pushed { stage, version: number, digest, standing, wants, notes })
    }

    /// Lets a version in that waits.
    ///
    /// # Errors
    /// `NotFound` when there is none; `Conflict` when it does not wait.
    pub fn approve(&self, stage: &str, version: &str, change: &Change) -> Result<Pushed> {
        self.check_stage(stage)?;
        let (found, standing) = self.change(stage, |deployment| {
            let found = deployment.find(version)?.clone();
            self.check_trust(&found)?;
            let way = deployment.approve(found.number, change)?;
            let standing = self.bring_in(deployment, found.number, way, change)?;
            Ok((found, standing))
        })?;
        Ok(pushed(stage, &found, standing))
    }

    /// Makes the candidate live.
    ///
    /// # Errors
    /// `Conflict` when there is none.
    pub fn promote(&self, stage: &str, change: &Change) -> Result<Pushed> {
        self.check_stage(stage)?;
        let found = self.change(stage, |deployment| {
            let number = deployment.promote(change)?;
            self.check_trust(deployment.find(&number.to_string())?)?;
            deployment.find(&number.to_string()).cloned()
        })?;
        Ok(pushed(stage, &found, Standing::Live))
    }

    /// Throws the candidate out; gives its number.
    ///
    /// # Errors
    /// `Conflict` when there is none.
    pub fn discard(&self, stage: &str, change: &Change) -> Result<u64> {
        self.check_stage(stage)?;
        self.change(stage, |deployment| deployment.throw_out(change))
    }

    /// Takes the live version back, to the one before it or to the one that is meant.
    ///
    /// # Errors
    /// `NotFound` when there is no such version; `Conflict` when none was live before; `Invalid` when it does not take
    /// the state that the live one has written.
    pub fn roll_back(&self, stage: &str, to: Option<&str>, change: &Change) -> Result<Pushed> {
        self.check_stage(stage)?;
        let deployment = self.0.registry.deployment(stage)?.unwrap_or_default().1;
        let to = match to {
            Some(to) => deployment.find(to).map(|version| version.number),
            None => deployment.previous(),
        };
        let to = to.map_err(|refusal| super::refused(stage, &refusal))?;
        // The one that still stands beside the live one has its own state.
        if deployment.before.is_none_or(|(before, _)| before != to) {
            let candidate = self.make(stage, &deployment, to)?;
            self.try_on_state(&candidate)?;
        }
        let found = self.change(stage, |deployment| {
            self.check_trust(deployment.find(&to.to_string())?)?;
            if !deployment.is_allowed(to) {
                return Err(Refusal::NotNow(format!("version {to} waits for approval")));
            }
            let live = deployment.live;
            deployment.roll_back(live, to, change);
            deployment.find(&to.to_string()).cloned()
        })?;
        Ok(pushed(stage, &found, Standing::Live))
    }

    /// Forgets versions but the latest ones and those in use. Gives their numbers.
    ///
    /// # Errors
    /// When the registry cannot be reached.
    pub fn prune(&self, stage: &str, keep: usize, change: &Change) -> Result<Vec<u64>> {
        self.check_stage(stage)?;
        let (numbers, gone) = self.change(stage, |deployment| {
            let before: Vec<u64> = deployment.versions.iter().map(|version| version.number).collect();
            let gone = deployment.prune(keep, change);
            let is_gone = |number: &u64| deployment.version(*number).is_none();
            Ok((before.into_iter().filter(is_gone).collect::<Vec<_>>(), gone))
        })?;
        for version in gone {
            let is_used = self.is_component_used(&version.digest)?;
            if !is_used {
                self.0.registry.remove_component(&version.digest)?;
            }
        }
        Ok(numbers)
    }

    /// Whether any stage has a version of this component.
    fn is_component_used(&self, digest: &str) -> Result<bool> {
        for stage in self.stages() {
            let (_, deployment) = self.0.registry.deployment(&stage)?.unwrap_or_default();
            if deployment.versions.iter().any(|version| version.digest == digest) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn bring_in(
        &self,
        deployment: &mut Deployment,
        number: u64,
        way: Way,
        change: &Change,
    ) -> Result<Standing, Refusal> {
        match way {
            Way::Swap => {
                deployment.go_live(number, self.probation(), change);
                Ok(Standing::Live)
            }
            Way::Shadow(rule) => {
                deployment.go_beside(number, rule, change)?;
                Ok(Standing::Shadow)
            }
        }
    }

    /// Whether a version that is kept would be let in today: keys may have been named since.
    fn check_trust(&self, version: &Version) -> Result<(), Refusal> {
        let trusted = &self.0.pipeline.swap.trusted_keys;
        let is_trusted = version.signed_by.as_ref().is_some_and(|key| trusted.contains(key));
        if trusted.is_empty() || is_trusted || version.origin == Origin::File {
            return Ok(());
        }
        let number = version.number;
        Err(Refusal::NotNow(format!(
            "no key of swap.trusted_keys has signed version {number}; push it with a signature"
        )))
    }

    fn probation(&self) -> Option<ProbationRule> {
        let swap = &self.0.pipeline.swap;
        let dead_max = (swap.probation as f64 * swap.dead_share) as u64;
        (swap.probation > 0).then_some(ProbationRule { records: swap.probation, dead_max })
    }
}

fn pushed(stage: &str, version: &Version, standing: Standing) -> Pushed {
    let (number, digest) = (version.number, version.digest.clone());
    Pushed { stage: stage.to_owned(), version: number, digest, standing, wants: Vec::new(), notes: Vec::new() }
}

/// What is not seen of how a version is brought in.
fn notes(deployment: &Deployment, number: u64, way: Way) -> Vec<String> {
    let mut notes = Vec::new();
    if deployment.live == number {
        notes.push("it is live already".to_owned());
    }
    if let (Way::Shadow(_), Some((other, _))) = (way, deployment.shadow)
        && other != number
    {
        notes.push(format!("version {other}, which was compared until now, goes for it"));
    }
    if let (Way::Shadow(_), Some(_)) = (way, deployment.before) {
        let live = deployment.live;
        notes
            .push(format!("it is compared once version {live} has proven itself: until then the one before stands by"));
    }
    notes
}
