//! How large the package of the functions is.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// Bytes of a package.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Size {
    /// As it is uploaded.
    pub zip: u64,
    /// As it lies in a function.
    pub unzipped: u64,
    /// The program alone, as it lies there.
    pub program: u64,
}

impl Size {
    /// Packs a package as the CDK does: deflate, at its usual level.
    ///
    /// # Errors
    /// When it cannot be read or packed.
    pub fn of(package: &Path) -> Result<Self> {
        let folder = TempDir::new()?;
        let zip = folder.path().join("package.zip");
        let mut entries: Vec<_> = fs::read_dir(package)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        entries.sort();
        // It is there: the local AWS is written in it.
        let packed = Command::new("python3")
            .args(["-m", "zipfile", "-c"])
            .arg(&zip)
            .args(&entries)
            .stdin(Stdio::null())
            .output()
            .context("start python3")?;
        ensure!(packed.status.success(), "pack: {}", String::from_utf8_lossy(&packed.stderr));
        let program = fs::metadata(package.join("bootstrap"))?.len();
        Ok(Self { zip: fs::metadata(zip)?.len(), unzipped: bytes(package)?, program })
    }
}

fn bytes(folder: &Path) -> Result<u64> {
    let of_entry = |entry: fs::DirEntry| {
        if entry.file_type()?.is_dir() { bytes(&entry.path()) } else { Ok(entry.metadata()?.len()) }
    };
    fs::read_dir(folder)?.map(|entry| of_entry(entry?)).sum()
}
