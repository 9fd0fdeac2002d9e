//! Ahead-of-time compiled components, by digest.
//!
//! Compiled code runs without any further check, so only files of our own making are loaded: the folder belongs to the
//! user alone, the name carries the digest of the component and a hash of everything that the compiler depends on, and
//! a digest of the compiled bytes stands in front of them and is checked on every load.

use std::{
    fs,
    hash::{Hash as _, Hasher as _},
    io::Write,
    path::{Path, PathBuf},
};

use tapeline_runtime::{compiled_name, deserialize, seal, unseal};
use wasmtime::component::Component;

use crate::error::{Context, Error, Kind, Result};

/// A folder of compiled components.
pub struct CompiledCache {
    folder: PathBuf,
}

impl CompiledCache {
    /// A cache in a folder, which is made when it is first needed.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The user's cache: `$TAPELINE_CACHE`, else `$XDG_CACHE_HOME/tapeline`, else `~/.cache/tapeline`.
    pub fn of_user() -> Self {
        let base = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = base("TAPELINE_CACHE")
            .or_else(|| base("XDG_CACHE_HOME").map(|folder| folder.join("tapeline")))
            .or_else(|| base("HOME").map(|home| home.join(".cache/tapeline")))
            .unwrap_or_else(|| std::env::temp_dir().join("tapeline-cache"));
        Self::new(folder)
    }

    /// The component behind `bytes`, compiled before or now.
    ///
    /// # Errors
    /// When the bytes are no component. That the cache cannot be written is no error.
    pub(crate) fn compile(&self, engine: &wasmtime::Engine, digest: &str, bytes: &[u8]) -> Result<Component> {
        let invalid = |error: wasmtime::Error| Error::caused(Kind::Invalid, "compile component", error);
        self.compile_by(engine, digest, || engine.precompile_component(bytes).map_err(invalid))
    }

    /// The component of a digest, compiled before or now by `compile`, which is trusted to compile for this engine.
    ///
    /// # Errors
    /// Those of `compile`.
    pub(crate) fn compile_by(
        &self,
        engine: &wasmtime::Engine,
        digest: &str,
        compile: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Component> {
        let path = self.path(engine, digest);
        if let Some(component) = load(engine, &path) {
            return Ok(component);
        }
        let invalid = |error: wasmtime::Error| Error::caused(Kind::Invalid, "compile component", error);
        let compiled = compile()?;
        if let Err(error) = self.store(&path, &compiled) {
            tracing::warn!(path = %path.display(), %error, "compiled component not cached");
        }
        deserialize(engine, &compiled).map_err(invalid)
    }

    fn path(&self, engine: &wasmtime::Engine, digest: &str) -> PathBuf {
        self.folder.join(compiled_name(digest, &engines(engine)))
    }

    fn store(&self, path: &Path, compiled: &[u8]) -> Result<()> {
        let place = || format!("write {}", path.display());
        make_private(&self.folder).doing(place)?;
        // Written under another name first, so that nobody ever reads half of it.
        let partial = path.with_extension(format!("{}.partial", std::process::id()));
        let mut file = fs::File::create(&partial).doing(place)?;
        file.write_all(&seal(compiled)).doing(place)?;
        file.write_all(compiled).doing(place)?;
        file.sync_all().doing(place)?;
        fs::rename(&partial, path).doing(place)
    }
}

/// What the compiler says of the engines that can run its code, in hex.
pub(crate) fn engines(engine: &wasmtime::Engine) -> String {
    let mut hasher = rustc_hash::FxHasher::default();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(unix)]
fn make_private(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn make_private(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)
}

fn load(engine: &wasmtime::Engine, path: &Path) -> Option<Component> {
    let component = unseal(engine, &fs::read(path).ok()?);
    if component.is_none() {
        tracing::warn!(path = %path.display(), "damaged compiled component");
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a component with nothing in it.
    const NOTHING: &[u8] = b"\0asm\x0d\0\x01\0";

    #[test]
    fn a_damaged_file_is_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, engine) = (CompiledCache::new(folder.path()), wasmtime::Engine::default());
        cache.compile(&engine, "digest", NOTHING).unwrap();
        let path = cache.path(&engine, "digest");
        let whole = fs::read(&path).unwrap();
        assert!(load(&engine, &path).is_some());
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let of_nothing_compiled = [&seal(b"not compiled")[..], b"not compiled"].concat();
        for damaged in [&flipped[..], &whole[..whole.len() / 2], &whole[..31], b"", &of_nothing_compiled]
        {
            fs::write(&path, damaged).unwrap();
            assert!(load(&engine, &path).is_none());
            cache.compile(&engine, "digest", NOTHING).unwrap();
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn what_is_no_component_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, engine) = (CompiledCache::new(folder.path()), wasmtime::Engine::default());
        assert!(cache.compile(&engine, "digest", b"no component").is_err_and(|error| error.kind() == Kind::Invalid));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
