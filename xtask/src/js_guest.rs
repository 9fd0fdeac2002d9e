//! Builds the stage in JavaScript (`examples/alarm-js`), which tests put in the place of the one in Rust.
//!
//! Only for tests: setting up its tools takes a download of 213 MB and some seconds. All of it happens in the target
//! directory, so that a user's own `node_modules` stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::npm::{self, digest_of};
use crate::process;
use crate::workspace::Workspace;

/// The folder of the stage, below the root.
const SOURCE: &str = "examples/alarm-js";
/// What decides what is built, and is copied to where it is built; the last are folders.
const FILES: [&str; 3] = ["package.json", "package-lock.json", "build.mjs"];
const FOLDERS: [&str; 2] = ["src", "test"];
/// Beside the copy: the digest of what the component and the packages were made from.
const BUILT: &str = "built";
const INSTALLED: &str = "installed";

/// Tests the stage in Node.js and builds it into `components/test/alarm-js.wasm`, unless the one that is there was
/// made from the same sources. Where there is no Node.js or no package to be had, says so: the tests that need the
/// component are reported as skipped.
///
/// # Errors
/// When the tools are there and the stage does not pass its tests, or does not build.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    let place = Place::of(workspace);
    let digest = place.digest().with_context(|| format!("reading {SOURCE}"))?;
    if place.component.is_file() && place.is_stamped(BUILT, digest) {
        return Ok(());
    }
    // One from other sources would pass for this one.
    let _ = fs::remove_file(&place.component);
    if let Err(error) = place.set_up() {
        eprintln!("no stage in JavaScript, which some tests need: {error:#}");
        return Ok(());
    }
    place.make().with_context(|| format!("building {SOURCE}"))?;
    place.stamp(BUILT, digest).context("noting what was built")
}

struct Place {
    source: PathBuf,
    contract: PathBuf,
    /// Where it is built.
    folder: PathBuf,
    component: PathBuf,
}

impl Place {
    fn of(workspace: &Workspace) -> Self {
        Self {
            source: workspace.root().join(SOURCE),
            contract: workspace.root().join("wit"),
            folder: workspace.target().join("tools/alarm-js"),
            component: workspace.components().join("test/alarm-js.wasm"),
        }
    }

    /// Of all that the component is made from.
    fn digest(&self) -> Result<u64> {
        let mut files: Vec<_> = FILES.iter().map(|name| self.source.join(name)).collect();
        for folder in FOLDERS.iter().map(|name| self.source.join(name)).chain([self.contract.clone()]) {
            files.extend(files_in(&folder)?);
        }
        digest_of(&files)
    }

    /// Copies the sources, and installs the packages if they are not those of the lock file.
    fn set_up(&self) -> Result<()> {
        npm::check_node()?;
        fs::create_dir_all(&self.folder)?;
        for name in FILES {
            fs::copy(self.source.join(name), self.folder.join(name)).with_context(|| format!("copying {name}"))?;
        }
        for name in FOLDERS {
            copy_folder(&self.source.join(name), &self.folder.join(name)).with_context(|| format!("copying {name}"))?;
        }
        npm::install(&self.folder, INSTALLED)
    }

    fn make(&self) -> Result<()> {
        let mut test = Command::new("npm");
        process::run(test.args(["test", "--silent"]).current_dir(&self.folder))?;
        let mut build = Command::new("node");
        build.args(["build.mjs", "--wit"]).arg(&self.contract).arg("--out").arg(&self.component);
        process::run(build.current_dir(&self.folder))
    }

    fn is_stamped(&self, stamp: &str, digest: u64) -> bool {
        fs::read_to_string(self.folder.join(stamp)).is_ok_and(|found| found == format!("{digest:016x}"))
    }

    fn stamp(&self, stamp: &str, digest: u64) -> Result<()> {
        Ok(fs::write(self.folder.join(stamp), format!("{digest:016x}"))?)
    }
}

/// The files of a folder, in order.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// Makes a folder the same as another one, which has no folders in it.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for file in files_in(from)? {
        fs::copy(&file, to.join(file.file_name().unwrap_or_default()))?;
    }
    Ok(())
}
