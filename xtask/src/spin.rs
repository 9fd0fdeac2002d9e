//! `cargo xtask spin`: the stages under Spin, with nothing of our host.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use crate::{guest, process};

/// What runs the application.
const PROGRAM: &str = "spin";
/// Where to get it; no registry that a package manager knows has it.
const HOW: &str = "Spin 4.1 or later is needed: https://spinframework.dev/install says how to get it, or \
                   `cargo install --locked --git https://github.com/spinframework/spin spin-cli`";

/// Builds the components, then becomes `spin up` with `spin.toml`.
///
/// # Errors
/// When something does not compile, or there is no `spin`.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    guest::build_all(workspace)?;
    if !process::succeeds(Command::new(PROGRAM).arg("--version")) {
        bail!("the components are built, and there is no `{PROGRAM}` on the path to run them. {HOW}");
    }
    let mut program = workspace.command(PROGRAM);
    process::become_program(program.args(["up", "--from", "spin.toml"]).args(args))
}
