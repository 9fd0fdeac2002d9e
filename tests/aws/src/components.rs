//! Components compiled ahead of time: in a package of functions, and pushed into a stack's bucket.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use tapeline::runtime::{CompiledCache, Engine};
use tapeline_tests::program;
use tempfile::TempDir;

use crate::stack::{Stack, package};

/// A component and what is made of it for this machine.
pub struct Compiled {
    /// SHA-256 of the component.
    pub digest: String,
    /// The component.
    pub component: Vec<u8>,
    /// The digest and a word for whom it was compiled.
    pub file_name: String,
    /// Compiled code, behind its SHA-256.
    pub code: Vec<u8>,
}

impl Compiled {
    /// Compiles a built component, such as `test/faulty`.
    ///
    /// # Errors
    /// When it was not built, or is no component.
    pub fn new(name: &str) -> Result<Self> {
        let folder = TempDir::new()?;
        let path = program::components().join(format!("{name}.wasm"));
        Engine::new(CompiledCache::new(folder.path()))?.load(&path).with_context(|| format!("compile {name}"))?;
        // The host's cache has the same form.
        let file = fs::read_dir(folder.path())?.next().context("a compiled component")??;
        let file_name = file.file_name().into_string().ok().context("a name of text")?;
        let (digest, _) = file_name.split_once('-').with_context(|| format!("no digest in {file_name}"))?;
        Ok(Self {
            digest: digest.to_owned(),
            component: fs::read(path)?,
            code: fs::read(file.path())?,
            file_name: file_name.clone(),
        })
    }

    /// Uploads it, and then lets a stage of a stack run it.
    ///
    /// # Errors
    /// When it cannot be uploaded.
    pub fn push(&self, stack: &Stack, stage: &str) -> Result<()> {
        let (bucket, client) =
            (stack.output("ComponentsBucket")?, aws_sdk_s3::Client::from_conf(stack.account.aws.s3()));
        // The pointer is the last: nobody finds it before what it points to.
        for (key, bytes) in [
            (self.file_name.clone(), self.code.clone()),
            (format!("{}.wasm", self.digest), self.component.clone()),
            (format!("stages/{stage}/current"), self.digest.clone().into_bytes()),
        ] {
            let upload = client.put_object().bucket(bucket).key(&key).body(bytes.into()).send();
            stack.account.runtime.block_on(upload).with_context(|| format!("upload {key}"))?;
        }
        Ok(())
    }
}

/// The package of functions with more components, under their files' names.
///
/// # Errors
/// When it cannot be written.
pub fn package_with(folder: &Path, names: &[&str]) -> Result<PathBuf> {
    let copied = folder.join("package");
    copy(&package(), &copied)?;
    for name in names {
        let compiled = Compiled::new(name)?;
        let place = copied.join("components").join(Path::new(name).file_name().context("the name of a file")?);
        fs::create_dir_all(&place)?;
        fs::write(place.join(&compiled.file_name), &compiled.code)?;
        fs::write(place.join("digest"), &compiled.digest)?;
    }
    Ok(copied)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &place)?;
        } else {
            fs::copy(entry.path(), place)?;
        }
    }
    Ok(())
}
