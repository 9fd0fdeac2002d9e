//! What the benchmarks compare.

pub mod chain;
pub mod chained;
pub mod invoke;
pub mod layouts;
pub mod plain;
pub mod swap;

use nix::sys::resource::{UsageWho, getrusage};

/// CPU time of all processes that were started and have ended.
///
/// # Errors
/// When the system does not say.
pub fn children_cpu_seconds() -> anyhow::Result<f64> {
    cpu_seconds(UsageWho::RUSAGE_CHILDREN)
}

/// CPU time of this process, or of those that it has started and that have ended.
///
/// # Errors
/// When the system does not say.
pub fn cpu_seconds(who: UsageWho) -> anyhow::Result<f64> {
    let usage = getrusage(who)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
