//! The deployment of a stage: its versions, which one runs, and what has been done about it.

use serde::{Deserialize, Serialize};

use crate::segment::Probation;

/// Versions that a stage can have. Each takes its component's room; they stay until somebody prunes them.
pub const VERSIONS_MAX: usize = 200;
/// Entries of the log that are kept.
pub const LOG_MAX: usize = 200;

/// Where a version comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The pipeline file names it.
    File,
    /// Somebody has uploaded it.
    Upload,
}

/// A component with what it is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// From 1, in the order of arrival. A number is never given twice.
    pub number: u64,
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// Size of the component.
    pub bytes: u64,
    /// Where it comes from.
    pub origin: Origin,
    /// What the component calls itself.
    pub name: String,
    /// The component's own version.
    pub semver: String,
    /// Version of the state that it writes; 0 when it keeps none.
    pub state_version: u32,
    /// The interfaces that it imports, without their versions.
    pub imports: Vec<String>,
    /// Its settings, a JSON object; absent: those of the pipeline file, as for the limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<String>,
    /// MiB of memory that it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// Milliseconds that it may take for a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_ms: Option<u64>,
    /// Who brought it.
    pub by: String,
    /// Why.
    pub why: String,
    /// When, ns since the epoch.
    pub at: i64,
    /// A signature of minisign over the component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// The key that has signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// Whether it has been let in before. It is not asked about again, and can always be gone back to.
    #[serde(default)]
    pub is_allowed: bool,
}

/// How a version is to be brought in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// In place of the live one.
    Swap,
    /// Beside it, to be compared.
    Shadow(ShadowRule),
}

/// When a candidate is promoted or thrown out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowRule {
    /// Promoted after so many records; by hand when absent.
    pub promote_after: Option<u64>,
    /// Thrown out with the first difference beyond this number.
    pub differences_max: u64,
}

/// An upload that wants more than the live version has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// The version.
    pub version: u64,
    /// How it is brought in once it is approved.
    pub way: Way,
    /// What it wants more.
    pub wants: Vec<String>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum What {
    Uploaded,
    Waits,
    Approved,
    Live,
    Proven,
    RolledBack,
    Shadow,
    Promoted,
    ThrownOut,
    Pruned,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logged {
    /// When, ns since the epoch.
    pub at: i64,
    /// What was done.
    pub what: What,
    /// With which version.
    pub version: u64,
    /// By whom: a person, or `tapeline` by rule.
    pub by: String,
    /// Why.
    pub why: String,
}

/// Who changes something, when and why.
#[derive(Clone, Debug)]
pub struct Change {
    /// When, ns since the epoch.
    pub at: i64,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
}

/// Which version of a stage runs, and all there were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// By number.
    pub versions: Vec<Version>,
    /// Number of the version that was brought last, also when it is pruned.
    pub last: u64,
    /// The version whose output counts.
    pub live: u64,
    /// As long as the live version must prove itself, the one before it, and what it may do wrong.
    pub before: Option<(u64, ProbationRule)>,
    /// The candidate.
    pub shadow: Option<(u64, ShadowRule)>,
    /// What waits for approval.
    pub pending: Vec<Pending>,
    /// What was done, the latest last.
    pub log: Vec<Logged>,
}

/// As [`Probation`], to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbationRule {
    /// Records that must be taken.
    pub records: u64,
    /// How many of them may be refused.
    pub dead_max: u64,
}

impl From<ProbationRule> for Probation {
    fn from(rule: ProbationRule) -> Self {
        Self { records: rule.records, dead_max: rule.dead_max }
    }
}

impl From<Probation> for ProbationRule {
    fn from(probation: Probation) -> Self {
        Self { records: probation.records, dead_max: probation.dead_max }
    }
}

/// Why a deployment is not changed: how it is now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such version.
    #[error("{0:?} is no version of it; it has version {1}: a number, or eight or more letters of a digest")]
    NoVersion(String, String),
    /// It cannot be done now.
    #[error("{0}")]
    NotNow(String),
}

impl Deployment {
    /// The version of a number.
    pub fn version(&self, number: u64) -> Option<&Version> {
        self.versions.iter().find(|version| version.number == number)
    }

    /// The live version.
    pub fn live_version(&self) -> Option<&Version> {
        self.version(self.live)
    }

    /// The version that is meant: by its number, or by the first letters of its digest, eight at least.
    ///
    /// # Errors
    /// `NoVersion` when there is none, or more than one.
    pub fn find(&self, wanted: &str) -> Result<&Version, Refusal> {
        let is_meant = |version: &&Version| {
            version.number.to_string() == wanted || (wanted.len() >= 8 && version.digest.starts_with(wanted))
        };
        // Of several versions of one component, the latest.
        let found: Vec<&Version> = self.versions.iter().filter(is_meant).collect();
        match found.as_slice() {
            [.., last] if found.iter().all(|version| version.digest == last.digest) => Ok(last),
            _ => {
                let known = self.versions.iter().map(|version| version.number.to_string()).collect::<Vec<_>>();
                Err(Refusal::NoVersion(wanted.to_owned(), known.join(", ")))
            }
        }
    }

    /// Adds a version, or finds the one that is the same; gives its number. The number of `version` does not matter.
    ///
    /// # Errors
    /// `NotNow` when there are too many.
    pub fn add(&mut self, version: Version, change: &Change) -> Result<u64, Refusal> {
        let is_same = |known: &&Version| {
            known.digest == version.digest
                && known.settings == version.settings
                && known.memory_mib == version.memory_mib
                && known.batch_ms == version.batch_ms
        };
        if let Some(known) = self.versions.iter().find(is_same) {
            return Ok(known.number);
        }
        if self.versions.len() >= VERSIONS_MAX {
            return Err(Refusal::NotNow(format!(
                "{VERSIONS_MAX} versions are kept; `tapeline stage prune` makes room"
            )));
        }
        self.last += 1;
        let number = self.last;
        self.versions.push(Version { number, ..version });
        self.note(What::Uploaded, number, change);
        Ok(number)
    }

    /// Whether a version has been let in before.
    pub fn is_allowed(&self, number: u64) -> bool {
        self.version(number).is_some_and(|version| version.is_allowed)
    }

    fn allow(&mut self, number: u64) {
        self.pending.retain(|pending| pending.version != number);
        if let Some(version) = self.versions.iter_mut().find(|version| version.number == number) {
            version.is_allowed = true;
        }
    }

    /// Lets a version wait for approval. An earlier wish of its is forgotten.
    pub fn wait(&mut self, version: u64, way: Way, wants: Vec<String>, change: &Change) {
        self.pending.retain(|pending| pending.version != version);
        self.pending.push(Pending { version, way, wants });
        self.note(What::Waits, version, change);
    }

    /// Approves what waits; gives how it is to be brought in.
    ///
    /// # Errors
    /// `NotNow` when it does not wait.
    pub fn approve(&mut self, version: u64, change: &Change) -> Result<Way, Refusal> {
        let Some(at) = self.pending.iter().position(|pending| pending.version == version) else {
            return Err(Refusal::NotNow(format!("version {version} does not wait for approval")));
        };
        let pending = self.pending.remove(at);
        self.allow(version);
        self.note(What::Approved, version, change);
        Ok(pending.way)
    }

    /// Makes a version the live one. It must prove itself if told so, unless there was none before it.
    pub fn go_live(&mut self, version: u64, probation: Option<ProbationRule>, change: &Change) {
        if self.live == version {
            return;
        }
        // One that has not proven itself is not what one goes back to.
        let before = self.before.map_or(self.live, |(before, _)| before);
        // The candidate has been compared, and takes over with its own state: nothing would stand by.
        let was_compared = self.shadow.take_if(|(shadow, _)| *shadow == version).is_some();
        let probation = probation.filter(|_| before != 0 && before != version && !was_compared);
        self.before = probation.map(|rule| (before, rule));
        self.live = version;
        self.allow(version);
        self.note(What::Live, version, change);
    }

    /// Runs a version beside the live one. One that runs there goes.
    ///
    /// # Errors
    /// `NotNow` for the live version.
    pub fn go_beside(&mut self, version: u64, rule: ShadowRule, change: &Change) -> Result<(), Refusal> {
        if self.live == version {
            return Err(Refusal::NotNow(format!("version {version} is live; there is nothing to compare it with")));
        }
        self.shadow = Some((version, rule));
        self.allow(version);
        self.note(What::Shadow, version, change);
        Ok(())
    }

    /// Makes the candidate live, which has proven itself beside.
    ///
    /// # Errors
    /// `NotNow` when there is none.
    pub fn promote(&mut self, change: &Change) -> Result<u64, Refusal> {
        let (version, _) = self.shadow.take().ok_or_else(no_candidate)?;
        self.live = version;
        self.before = None;
        self.note(What::Promoted, version, change);
        Ok(version)
    }

    /// Throws the candidate out.
    ///
    /// # Errors
    /// `NotNow` when there is none.
    pub fn throw_out(&mut self, change: &Change) -> Result<u64, Refusal> {
        let (version, _) = self.shadow.take().ok_or_else(no_candidate)?;
        self.note(What::ThrownOut, version, change);
        Ok(version)
    }

    /// The version that one goes back to: the one before the live one that was live last and has not failed.
    ///
    /// # Errors
    /// `NotNow` when there is none.
    pub fn previous(&self) -> Result<u64, Refusal> {
        if let Some((before, _)) = self.before {
            return Ok(before);
        }
        let was_live = |logged: &&Logged| matches!(logged.what, What::Live | What::Promoted);
        let has_failed = |version: u64| {
            let last = self.log.iter().rev().find(|logged| logged.version == version && logged.what != What::Uploaded);
            last.is_some_and(|logged| logged.what == What::RolledBack)
        };
        let candidates = self.log.iter().rev().filter(was_live).map(|logged| logged.version);
        candidates
            .into_iter()
            .find(|version| *version != self.live && self.version(*version).is_some() && !has_failed(*version))
            .ok_or_else(|| Refusal::NotNow("no version was live before this one".to_owned()))
    }

    /// Takes the live version back, if it still is the one that is meant.
    pub fn roll_back(&mut self, version: u64, to: u64, change: &Change) {
        if self.live != version || version == to {
            return;
        }
        self.note(What::RolledBack, version, change);
        self.live = to;
        self.before = None;
        self.shadow.take_if(|(shadow, _)| *shadow == to);
        self.allow(to);
        let why = format!("in place of version {version}");
        self.note(What::Live, to, &Change { why, ..change.clone() });
    }

    /// Lets the live version have proven itself, if it still is the one that is meant.
    pub fn prove(&mut self, version: u64, change: &Change) {
        if self.live == version && self.before.take().is_some() {
            self.note(What::Proven, version, change);
        }
    }

    /// Forgets versions but the latest `keep` and those that run, wait, or would be gone back to. Gives what is gone.
    pub fn prune(&mut self, keep: usize, change: &Change) -> Vec<Version> {
        let previous = self.previous().ok();
        let spare = self.versions.len().saturating_sub(keep);
        let mut gone = Vec::new();
        let mut kept = Vec::new();
        for (at, version) in std::mem::take(&mut self.versions).into_iter().enumerate() {
            let number = version.number;
            let is_used = number == self.live
                || previous == Some(number)
                || self.shadow.is_some_and(|(shadow, _)| shadow == number)
                || self.pending.iter().any(|pending| pending.version == number);
            if at < spare && !is_used {
                gone.push(version);
            } else {
                kept.push(version);
            }
        }
        self.versions = kept;
        for version in &gone {
            self.note(What::Pruned, version.number, change);
        }
        // A component that another version has too is still needed.
        gone.retain(|gone| self.versions.iter().all(|kept| kept.digest != gone.digest));
        gone
    }

    fn note(&mut self, what: What, version: u64, change: &Change) {
        let Change { at, by, why } = change.clone();
        self.log.push(Logged { at, what, version, by, why });
        let spare = self.log.len().saturating_sub(LOG_MAX);
        self.log.drain(..spare);
    }
}

fn no_candidate() -> Refusal {
    Refusal::NotNow("no candidate runs beside the live version".to_owned())
}
