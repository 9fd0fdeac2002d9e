//! What the stages of a segment are to run, as somebody else decides it, and what comes of that.

use std::{sync::Arc, time::Duration};

use super::{Blueprint, Comparison};

/// Decides which version of each stage runs. Asked at commit boundaries; must not wait.
pub trait Plans: Send + Sync {
    /// Another number whenever any plan has changed.
    fn generation(&self) -> u64;

    /// What a stage is to run; `None` when nobody decides about it.
    fn plan(&self, stage: &str) -> Option<Plan>;

    /// Takes what has happened to a stage, in a chain of one of its partitions. Called behind the commit that it belongs
    /// to; must not wait.
    fn report(&self, stage: &str, partition: Option<u32>, news: News);
}

/// What a stage is to run.
#[derive(Clone)]
pub struct Plan {
    /// The version whose output counts.
    pub live: Arc<dyn Blueprint>,
    /// How long it must prove itself before the version before it is let go; `None` once it has.
    pub probation: Option<Probation>,
    /// The version that is run beside it, and compared.
    pub shadow: Option<Shadow>,
}

/// What a new version may do wrong before the one before it is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probation {
    /// Records that it must have taken.
    pub records: u64,
    /// How many of them it may refuse that the version before takes.
    pub dead_max: u64,
}

/// A candidate.
#[derive(Clone)]
pub struct Shadow {
    /// What it is made from.
    pub blueprint: Arc<dyn Blueprint>,
    /// Differences beyond this number throw it out.
    pub differences_max: u64,
}

/// What has happened to a stage.
#[derive(Clone, Debug)]
pub enum News {
    /// A worker has begun, with this version.
    Runs {
        /// The version.
        version: u64,
    },
    /// A version is live. The worker stood still for so long.
    Live {
        /// The version.
        version: u64,
        /// From the commit boundary on.
        pause: Duration,
    },
    /// A version has passed its probation.
    Proven {
        /// The version.
        version: u64,
    },
    /// A version failed, and the one before it has taken its place.
    RolledBack {
        /// The version that failed.
        version: u64,
        /// The version before it.
        to: u64,
        /// Why.
        reason: String,
    },
    /// A version could not be started with the state that there is.
    NotStarted {
        /// The version.
        version: u64,
        /// Why.
        reason: String,
    },
    /// How a candidate compares, since it was started in this worker.
    Compared {
        /// The candidate.
        version: u64,
        /// The comparison.
        comparison: Comparison,
    },
    /// A candidate is thrown out.
    ThrownOut {
        /// The candidate.
        version: u64,
        /// Why.
        reason: String,
    },
}
