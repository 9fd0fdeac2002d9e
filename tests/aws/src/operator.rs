//! The program `tapeline-aws`, as `tapeline` runs it.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use tapeline_harness::program;

use crate::local_aws::REGION;

/// What a run said.
#[derive(Debug)]
pub struct Run {
    /// Exit code.
    pub code: i32,
    /// What it wrote to standard output.
    pub said: String,
    /// What it wrote to standard error.
    pub errors: String,
}

/// Runs it against a local AWS, with nothing of the user's own settings.
///
/// # Errors
/// When it cannot be started.
pub fn run(endpoint: &str, arguments: &[&str]) -> Result<Run> {
    command(endpoint, arguments).output().map_err(Into::into).and_then(|output| {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().context("it did not come to its end")?;
        Ok(Run { code, said: text(output.stdout), errors: text(output.stderr) })
    })
}

/// The same, not yet started.
pub fn command(endpoint: &str, arguments: &[&str]) -> Command {
    let mut command = set_up(path(), endpoint);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A program with the credentials of a local AWS, and nothing of the user's own settings.
pub fn set_up(program: PathBuf, endpoint: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    command.envs([("AWS_ENDPOINT_URL", endpoint), ("AWS_REGION", REGION), ("USER", "tester")]);
    command.envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")]);
    command
}

/// Where it is built, beside the program of the functions.
fn path() -> PathBuf {
    program::components().join("../lambda/tapeline-aws")
}
