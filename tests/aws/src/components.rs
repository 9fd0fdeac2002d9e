//! Components compiled ahead of time: in a package of functions, and pushed into a stack's bucket.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use tapeline::runtime::{Architecture, FunctionCompiler};
use tapeline_tests::program;

use crate::stack::{Stack, package};

/// A component and what is made of it for functions.
pub struct Compiled {
    component: Vec<u8>,
    digest: Arc<str>,
    name: String,
    code: Vec<u8>,
}

impl Compiled {
    /// Compiles a built component, such as `test/faulty`.
    ///
    /// # Errors
    /// When it was not built, or is no component.
    pub fn new(name: &str) -> Result<Self> {
        let component = fs::read(program::components().join(format!("{name}.wasm")))?;
        let compiled = FunctionCompiler::new(Architecture::X86_64)?.compile(&component);
        let compiled = compiled.with_context(|| format!("compile {name}"))?;
        Ok(Self { component, digest: compiled.digest, name: compiled.name, code: compiled.bytes })
    }

    /// SHA-256 of the component.
    pub fn digest(&self) -> &str {
        &self.digest
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
            (self.name.clone(), self.code.clone()),
            (format!("{}.wasm", self.digest()), self.component.clone()),
            (format!("stages/{stage}/current"), self.digest().as_bytes().to_vec()),
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
        fs::write(place.join(&compiled.name), &compiled.code)?;
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
