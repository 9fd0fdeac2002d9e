//! Packages of npm, as their lock files name them.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// The oldest Node.js that the tools run on.
const NODE_MAJOR_MIN: u32 = 20;

/// Installs the packages of a folder, unless they are those of its lock file by what `stamp`, a file in it, says.
///
/// # Errors
/// When there is no npm, or a package cannot be had.
pub(crate) fn install(folder: &Path, stamp: &str) -> Result<()> {
    let digest = format!("{:016x}", digest_of(&[folder.join("package-lock.json")])?);
    let stamp = folder.join(stamp);
    if fs::read_to_string(&stamp).is_ok_and(|found| found == digest) {
        return Ok(());
    }
    let mut install = Command::new("npm");
    process::run(install.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(folder))?;
    fs::write(&stamp, digest).context("noting what was installed")
}

/// Sees to it that Node.js is there, and new enough.
///
/// # Errors
/// Says which one is needed, and where it is.
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
