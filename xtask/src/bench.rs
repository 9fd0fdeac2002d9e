//! `cargo xtask bench`: the benchmarks, on what was just built.

use std::process::ExitCode;

use anyhow::Result;

use crate::workspace::{HostProfile, Workspace};
use crate::{build, nats_server, process};

/// Builds, then becomes the program `bench` of the package of tests.
///
/// # Errors
/// When something does not compile, or the program cannot be started.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    nats_server::set_up(workspace);
    build::run(workspace, HostProfile::Release)?;
    let mut bench = workspace.cargo("run");
    bench.args(["--release", "--package", "tapeline-tests", "--bin", "bench", "--"]);
    process::become_program(bench.args(args).env("PATH", nats_server::path(workspace)))
}
