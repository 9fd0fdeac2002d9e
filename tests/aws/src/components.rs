//! Components compiled ahead of time: in a package of functions, and pushed into a stack's bucket.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use tapeline_harness::program;
use tapeline_runtime::unsealed;
use tempfile::TempDir;

use crate::{
    operator::{self, Run},
    stack::{Stack, package, text},
};

/// A component and what is made of it for functions.
pub struct Compiled {
    digest: String,
    name: String,
    code: Vec<u8>,
}

impl Compiled {
    /// Compiles a built component, such as `test/faulty`.
    ///
    /// # Errors
    /// When it was not built, or is no component.
    pub fn new(name: &str) -> Result<Self> {
        let (path, into) = (program::components().join(format!("{name}.wasm")), TempDir::new()?);
        let mut compile = Command::new(program::path());
        let compiled = compile.args(["compile", "--into"]).arg(into.path()).arg(&path).output()?;
        ensure!(compiled.status.success(), "compile {name}: {}", String::from_utf8_lossy(&compiled.stderr));
        let file = PathBuf::from(String::from_utf8(compiled.stdout)?.trim_end());
        let file_name = file.file_name().and_then(|name| name.to_str()).context("the name of what was compiled")?;
        let digest = file_name.split('-').next().unwrap_or_default().to_owned();
        Ok(Self { digest, name: file_name.to_owned(), code: fs::read(&file)? })
    }

    /// SHA-256 of the component.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What it is compiled to, as it is stored: the name of its file, and what is in it.
    pub fn file(&self) -> (&str, &[u8]) {
        (&self.name, &self.code)
    }

    /// Lets a stage of a stack run it, as a user does.
    ///
    /// # Errors
    /// When it is refused; says why.
    pub fn push(&self, stack: &Stack, stage: &str) -> Result<()> {
        let run = self.try_push(stack, stage)?;
        ensure!(run.code == 0, "push {} to {stage}: {} {}", self.digest, run.code, run.errors);
        Ok(())
    }

    /// What is said when it is pushed.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn try_push(&self, stack: &Stack, stage: &str) -> Result<Run> {
        let folder = TempDir::new()?;
        let file = folder.path().join(&self.name);
        fs::write(&file, &self.code)?;
        operator::run(&stack.account.aws.endpoint(), &["stage", "push", &stack.name, stage, "--compiled", text(&file)?])
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
        fs::write(place.join(&compiled.name), unsealed(&compiled.code).context("what was compiled is damaged")?)?;
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
