//! Builds the stage in JavaScript (`examples/alarm-js`), which tests put in the place of the one in Rust.
//!
//! Only for tests: setting up its tools takes a download of 213 MB and some seconds. All of it happens in the target
//! directory, so that a user's own `node_modules` stays as it is.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

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
/// The oldest Node.js that the tools run on.
const NODE_MAJOR_MIN: u32 = 20;

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
        check_node()?;
        fs::create_dir_all(&self.folder)?;
        for name in FILES {
            fs::copy(self.source.join(name), self.folder.join(name)).with_context(|| format!("copying {name}"))?;
        }
        for name in FOLDERS {
            copy_folder(&self.source.join(name), &self.folder.join(name)).with_context(|| format!("copying {name}"))?;
        }
        let digest = digest_of(&[self.source.join("package-lock.json")])?;
        if self.is_stamped(INSTALLED, digest) {
            return Ok(());
        }
        let mut install = Command::new("npm");
        install.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&self.folder);
        process::run(&mut install)?;
        self.stamp(INSTALLED, digest)
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

pub(crate) fn check_node() -> Result<()> {
    let version = process::read(Command::new("node").arg("--version")).with_context(|| {
        format!("Node.js {NODE_MAJOR_MIN} or later is not on the path; https://nodejs.org/en/download has it")
    })?;
    if major(&version).is_none_or(|major| major < NODE_MAJOR_MIN) {
        bail!("Node.js is {version}, and must be {NODE_MAJOR_MIN} or later; https://nodejs.org/en/download has it");
    }
    Ok(())
}

/// Reads `v20.20.2`.
fn major(version: &str) -> Option<u32> {
    version.strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// The standard library may hash otherwise in its next version; then the component is built once more.
pub(crate) fn digest_of(files: &[PathBuf]) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    for file in files {
        let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        hasher.write(file.file_name().unwrap_or_default().as_encoded_bytes());
        hasher.write_usize(bytes.len());
        hasher.write(&bytes);
    }
    Ok(hasher.finish())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_node_is_read() {
        assert_eq!(major("v20.20.2"), Some(20));
        assert_eq!(major("v8"), Some(8));
        assert_eq!(major("20.1.0"), None);
    }

    #[test]
    fn another_byte_or_name_is_another_digest() {
        let folder = std::env::temp_dir().join(format!("xtask-digest-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let digest = |name: &str, text: &str| {
            fs::write(folder.join(name), text).unwrap();
            digest_of(&[folder.join(name)]).unwrap()
        };
        assert_eq!(digest("a", "x"), digest("a", "x"));
        assert_ne!(digest("a", "x"), digest("a", "y"));
        assert_ne!(digest("a", "x"), digest("b", "x"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
