//! `cargo xtask up`: from a fresh checkout to a running pipeline.

use std::process::ExitCode;

use anyhow::Result;

use crate::workspace::{HostProfile, Workspace};
use crate::{build, process};

/// The pipeline that needs no key of a vendor.
const PIPELINE: &str = "pipelines/bitcoin-trades.toml";

/// Builds, then becomes `tapeline up` with the Bitcoin pipeline.
///
/// # Errors
/// When something does not compile, or the program cannot be started.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    build::run(workspace, HostProfile::Release)?;
    let mut program = workspace.command(workspace.program(HostProfile::Release));
    process::become_program(program.args(["up", PIPELINE, "--data", "./data"]).args(args))
}
