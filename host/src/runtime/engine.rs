//! The engine with its compiler: component files and uploads made ready to be instantiated.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tapeline_runtime::{COMPONENT_BYTES_MAX, Component, RuntimeError, digest};

use super::{CompileLimits, CompiledCache, apart};
use crate::error::{Context, Error, Kind, Result};

/// Compiles and runs components. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    runtime: tapeline_runtime::Engine,
    cache: Arc<CompiledCache>,
    compiler: Option<Arc<Path>>,
}

impl From<RuntimeError> for Error {
    fn from(error: RuntimeError) -> Self {
        let message = error.to_string();
        match error {
            RuntimeError::Unfit { source: None, .. } => Self::invalid(message),
            RuntimeError::Unfit { source: Some(source), .. } => Self::caused(Kind::Invalid, message, source),
            RuntimeError::Engine(source) => Self::caused(Kind::Internal, message, source),
        }
    }
}

impl Engine {
    /// An engine that keeps compiled code in `cache`.
    ///
    /// # Errors
    /// When the machine cannot run compiled code.
    pub fn new(cache: CompiledCache) -> Result<Self> {
        Ok(Self { runtime: tapeline_runtime::Engine::new()?, cache: Arc::new(cache), compiler: None })
    }

    /// The same with a program, this one, that compiles in a process of its own what was uploaded.
    pub fn with_compiler(mut self, program: PathBuf) -> Self {
        self.compiler = Some(program.into());
        self
    }

    /// Reads a component file and makes it ready, compiling it if that has not been done before.
    ///
    /// # Errors
    /// When there is no such file, it is larger than 64 MiB, no component, or of none of the contract's worlds.
    pub fn load(&self, path: &Path) -> Result<Component> {
        let place = || format!("load component {}", path.display());
        let size = std::fs::metadata(path).doing(place)?.len();
        if size > COMPONENT_BYTES_MAX {
            let message = format!("load component {}: {size} bytes, at most {COMPONENT_BYTES_MAX}", path.display());
            return Err(Error::invalid(message));
        }
        self.prepare(&std::fs::read(path).doing(place)?).doing(place)
    }

    /// Makes a component ready from its bytes.
    ///
    /// # Errors
    /// When it is no component, or of none of the contract's worlds.
    pub fn prepare(&self, bytes: &[u8]) -> Result<Component> {
        let digest: Arc<str> = digest(bytes).into();
        let compiled = self.cache.compile(self.runtime.engine(), &digest, bytes)?;
        Ok(self.runtime.fit(&compiled, digest, bytes.len() as u64)?)
    }

    /// As [`Self::prepare`], of bytes that somebody has uploaded: compiled in a process of its own, where there is a
    /// program to do it.
    ///
    /// # Errors
    /// As there; and when the compiler needs more than it may have. Each says what was found and what was expected.
    pub fn prepare_foreign(&self, bytes: &[u8], limits: &CompileLimits) -> Result<Component> {
        check_header(bytes)?;
        let Some(program) = &self.compiler else { return self.prepare(bytes) };
        let digest: Arc<str> = digest(bytes).into();
        let compile = || apart::compile(program, bytes, limits);
        let compiled = self.cache.compile_by(self.runtime.engine(), &digest, compile)?;
        Ok(self.runtime.fit(&compiled, digest, bytes.len() as u64)?)
    }
}

/// Whether bytes begin as a component does, so that what is something else is told by its name.
fn check_header(bytes: &[u8]) -> Result<()> {
    // <https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md>: magic, version, layer.
    const MAGIC: &[u8] = b"\0asm";
    let found = match bytes {
        [] => "nothing",
        _ if bytes.len() < 8 || !bytes.starts_with(MAGIC) => "no WebAssembly",
        [_, _, _, _, _, _, 0, 0, ..] => "a core module, which `wasm-tools component new` makes a component of",
        [_, _, _, _, _, _, 1, 0, ..] => return Ok(()),
        _ => "WebAssembly of an unknown layer",
    };
    Err(Error::invalid(format!("read the component: it is {found}, instead of a WebAssembly component")))
}
