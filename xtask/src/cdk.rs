//! Sets up the packages of `infra/cdk`, whose tests are one of ours (`tests/tests/cdk.rs`).

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::js_guest::{check_node, digest_of};
use crate::process;
use crate::workspace::Workspace;

/// The folder of the CDK app, below the root.
const SOURCE: &str = "infra/cdk";
/// In it: the digest of the lock file that the packages were installed by. It goes when they go.
const INSTALLED: &str = "node_modules/.tapeline-installed";

/// Installs the packages, unless they are those of the lock file. Where there is no Node.js, or no package to be had, says
/// so: the test is reported as skipped.
pub(crate) fn set_up(workspace: &Workspace) {
    if let Err(error) = install(&workspace.root().join(SOURCE)) {
        eprintln!("no CDK, which a test needs: {error:#}");
    }
}

fn install(folder: &Path) -> Result<()> {
    check_node()?;
    let digest = format!("{:016x}", digest_of(&[folder.join("package-lock.json")])?);
    let stamp = folder.join(INSTALLED);
    if fs::read_to_string(&stamp).is_ok_and(|found| found == digest) {
        return Ok(());
    }
    let mut install = Command::new("npm");
    process::run(install.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(folder))?;
    fs::write(&stamp, digest).context("noting what was installed")
}
