//! `cargo xtask bench`: the benchmarks, on what was just built.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::lambda::{self, Architecture};
use crate::workspace::{HostProfile, Workspace};
use crate::{build, local_aws, nats_server, process};

/// What asks for the functions on AWS Lambda alone.
const FUNCTIONS: &str = "functions";

/// Builds, then runs the benchmarks: those of the host and those of the functions; with arguments those of the host alone, or
/// of the functions alone when `functions` is the first.
///
/// # Errors
/// When something does not compile, or a program cannot be started.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    match args.split_first() {
        Some((first, rest)) if first == FUNCTIONS => {
            build::run(workspace, HostProfile::Release)?;
            functions(workspace, rest)
        }
        None => {
            nats_server::set_up(workspace);
            build::run(workspace, HostProfile::Release)?;
            process::run(&mut host(workspace))?;
            functions(workspace, &[])
        }
        Some(_) => {
            nats_server::set_up(workspace);
            build::run(workspace, HostProfile::Release)?;
            process::become_program(host(workspace).args(args))
        }
    }
}

/// The program `bench` of the package of tests.
fn host(workspace: &Workspace) -> Command {
    let mut bench = workspace.cargo("run");
    bench.args(["--release", "--package", "tapeline-tests", "--bin", "bench", "--"]);
    bench.env("PATH", nats_server::path(workspace));
    bench
}

/// Becomes the program `bench-functions`, on the package of functions; built as for their tests.
fn functions(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    local_aws::set_up(workspace);
    let mut programs = workspace.cargo("build");
    process::run(programs.args(lambda::SELECTION).arg("--bins"))?;
    lambda::pack(workspace, Architecture::X86_64, &lambda::program(workspace))?;
    let bench = workspace.target().join("lambda").join("bench-functions");
    process::become_program(workspace.command(bench).args(args))
}
