//! Which versions each stage has, and which of them runs: kept once for a pipeline, however many hosts it has.
//!
//! A [`Deployment`] is one document a stage. Whoever changes it says which revision was read, so that of two changes at
//! once one is refused and made again on what the other has left: all hosts end in one version. Knows neither components
//! nor pipelines; [`Registry`] has a backend in the data folder and one on the broker.

mod deployment;
#[cfg(test)]
mod tests;

pub use self::deployment::{
    Change, Deployment, LOG_MAX, Logged, Origin, Pending, ProbationRule, Refusal, ShadowRule, VERSIONS_MAX, Version,
    Way, What,
};
use crate::error::Result;

/// A document with the number that changes whenever it does; 0 when there is none.
pub type Revised<T> = (u64, T);

/// Keeps deployments, components, and what workers report.
pub trait Registry: Send + Sync {
    /// The deployment of a stage; `None` when it has none yet.
    ///
    /// # Errors
    /// `Unavailable` when the registry cannot be reached; `Corrupt` when what is there cannot be read; as for all calls.
    fn deployment(&self, stage: &str) -> Result<Option<Revised<Deployment>>>;

    /// Puts a deployment in place of the one of this revision; 0 for none. Gives the new revision.
    ///
    /// # Errors
    /// `Conflict` when another one is there.
    fn put_deployment(&self, stage: &str, revision: u64, deployment: &Deployment) -> Result<u64>;

    /// Keeps a component, by the SHA-256 of its bytes in hex. One that is there stays.
    ///
    /// # Errors
    /// `Unavailable` when there is no room.
    fn put_component(&self, digest: &str, bytes: &[u8]) -> Result<()>;

    /// A component.
    ///
    /// # Errors
    /// `NotFound` when there is none of this digest; `Corrupt` when it is not what was kept.
    fn component(&self, digest: &str) -> Result<Vec<u8>>;

    /// Forgets a component. That there is none is no error.
    ///
    /// # Errors
    /// When the registry cannot be reached.
    fn remove_component(&self, digest: &str) -> Result<()>;

    /// Puts what a worker has to say about a stage in place of what it said before.
    ///
    /// # Errors
    /// When the registry cannot be reached.
    fn put_report(&self, stage: &str, worker: &str, report: &str) -> Result<()>;

    /// What workers have to say about a stage, by worker.
    ///
    /// # Errors
    /// When the registry cannot be reached.
    fn reports(&self, stage: &str) -> Result<Vec<(String, String)>>;

    /// Whether other hosts use it too.
    fn is_shared(&self) -> bool;

    /// Whether others may have changed something since this was last asked. Must not wait.
    fn has_news(&self) -> bool;
}
