//! `cargo xtask build`: the components, then the program, or the components of some stages.

use std::process::ExitCode;

use anyhow::Result;

use crate::workspace::{HostProfile, Workspace};
use crate::{guest, lambda, process};

/// Builds every component and the host program.
///
/// # Errors
/// When something does not compile, or nothing here compiles for WebAssembly.
pub(crate) fn run(workspace: &Workspace, profile: HostProfile) -> Result<ExitCode> {
    guest::build_all(workspace)?;
    let mut host = workspace.cargo("build");
    // Of the whole workspace, so that cargo picks the same features of dependencies as for the tests, and the engine is
    // compiled once for both.
    host.arg("--workspace")
        .args(lambda::PACKAGES.into_iter().flat_map(|name| ["--exclude", name]))
        .args(["--bin", "tapeline"]);
    match profile {
        HostProfile::Release => process::run(host.arg("--release"))?,
        HostProfile::Debug => process::run(&mut host)?,
    }
    eprintln!("built {}", workspace.display(&workspace.program(profile)));
    Ok(ExitCode::SUCCESS)
}

/// Builds the components of some stages.
///
/// # Errors
/// When one does not compile, or is not there.
pub(crate) fn stages(workspace: &Workspace, stages: &[String]) -> Result<ExitCode> {
    guest::build_some(workspace, stages)?;
    Ok(ExitCode::SUCCESS)
}
