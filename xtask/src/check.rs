//! `cargo xtask check`: format, lints, documentation, dependencies. It changes no file of the source.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::process;
use crate::workspace::Workspace;

/// How to get the one tool that does not come with Rust.
const INSTALL_DENY: &str = "cargo install --locked cargo-deny@0.20";

/// Runs every check, also after one has failed.
///
/// # Errors
/// When one has failed; the message names each.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    let mut failed = Vec::new();
    for mut check in checks(workspace) {
        eprintln!("== {}", process::describe(&check));
        if process::run(&mut check).is_err() {
            failed.push(process::describe(&check));
        }
    }
    if !failed.is_empty() {
        bail!("these checks failed:\n  {}", failed.join("\n  "));
    }
    Ok(ExitCode::SUCCESS)
}

fn checks(workspace: &Workspace) -> Vec<Command> {
    let mut format = workspace.cargo("fmt");
    format.args(["--all", "--check"]);
    let mut lints = workspace.cargo("clippy");
    lints.args(["--workspace", "--all-targets", "--", "-D", "warnings"]);
    let mut documentation = workspace.cargo("doc");
    documentation.args(["--no-deps", "--workspace"]).env("RUSTDOCFLAGS", "-D warnings");
    [format, lints, documentation].into_iter().chain(dependencies(workspace)).collect()
}

fn dependencies(workspace: &Workspace) -> Option<Command> {
    if !process::succeeds(workspace.cargo("deny").arg("--version")) {
        eprintln!("cargo-deny is not installed: licences and advisories go unchecked. Get it by `{INSTALL_DENY}`.");
        return None;
    }
    let mut check = workspace.cargo("deny");
    check.arg("check");
    Some(check)
}
