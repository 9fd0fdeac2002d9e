//! What a stage is made from.

use std::time::Duration;

use super::Role;
use crate::runtime::{Fault, Instance};

/// What a stage is made from, as often as need be: a compiled component with its settings and limits, or, in tests and
/// benchmarks, native code.
pub trait Blueprint: Send + Sync {
    /// Name of the stage in its pipeline.
    fn name(&self) -> &str;

    /// What it is good for.
    fn role(&self) -> Role;

    /// SHA-256 of the component, in hex.
    fn digest(&self) -> &str;

    /// Number of this version among those that the stage has had; 0 for the only one.
    fn version(&self) -> u64 {
        0
    }

    /// Its settings, a JSON object.
    fn settings(&self) -> &str;

    /// Time that a call may take.
    fn call_time_max(&self) -> Duration;

    /// Makes an instance that has its settings.
    ///
    /// # Errors
    /// When it does not start, or refuses the settings.
    fn instantiate(&self) -> Result<Box<dyn Instance>, Fault>;
}
