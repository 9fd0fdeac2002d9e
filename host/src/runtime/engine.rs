//! The engine, and components made ready to be instantiated.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use sha2::{Digest, Sha256};
use wasmtime::component::Linker;

use super::{CompileLimits, CompiledCache, apart, wasi::HostState};
use crate::{
    contract::{fetcher_world::FetcherPre, stage_world::StagePre, writer_world::WriterPre},
    error::{Context, Error, Kind, Result},
};

/// Length of an epoch: how exactly time limits are kept. A tick costs the host a wake-up.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// A component that is larger is refused before it is read. The largest of ours has 300 kB, one that brings an
/// interpreter of another language has 20 to 40 MB.
pub const COMPONENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Compiles and runs components. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    engine: wasmtime::Engine,
    linker: Arc<Linker<HostState>>,
    cache: Arc<CompiledCache>,
    compiler: Option<Arc<Path>>,
}

/// Which of the contract's worlds a component is of.
#[derive(Clone)]
pub(crate) enum World {
    Fetcher(FetcherPre<HostState>),
    Stage(StagePre<HostState>),
    Writer(WriterPre<HostState>),
}

impl World {
    /// The world's name.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Fetcher(_) => "fetcher",
            Self::Stage(_) => "stage",
            Self::Writer(_) => "writer",
        }
    }
}

/// A compiled component. Cheap to clone.
#[derive(Clone)]
pub struct Component {
    pub(crate) engine: wasmtime::Engine,
    pub(crate) world: World,
    /// SHA-256 of the component's bytes, in hex.
    pub digest: Arc<str>,
    /// Size of the component.
    pub bytes: u64,
    /// The interfaces that it imports, without their versions, in order.
    pub imports: Arc<[String]>,
}

impl Component {
    /// Name of the contract's world that it is of: `fetcher`, `stage` or `writer`.
    pub const fn world_name(&self) -> &'static str {
        self.world.name()
    }
}

impl Engine {
    /// An engine that keeps compiled code in `cache`.
    ///
    /// # Errors
    /// When the machine cannot run compiled code.
    pub fn new(cache: CompiledCache) -> Result<Self> {
        let internal = |error: wasmtime::Error| Error::caused(Kind::Internal, "make the engine", error);
        let engine = bare()?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(internal)?;
        tick(engine.weak());
        Ok(Self { engine, linker: Arc::new(linker), cache: Arc::new(cache), compiler: None })
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
        let compiled = self.cache.compile(&self.engine, &digest, bytes)?;
        self.fit(&compiled, digest, bytes.len() as u64)
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
        let compiled = self.cache.compile_by(&self.engine, &digest, compile)?;
        self.fit(&compiled, digest, bytes.len() as u64)
    }

    /// Finds the world of a compiled component.
    fn fit(&self, compiled: &wasmtime::component::Component, digest: Arc<str>, bytes: u64) -> Result<Component> {
        let imports = self.imports(compiled);
        check_imports(&imports)?;
        let refused = |error: wasmtime::Error| {
            Error::caused(Kind::Invalid, "link component: it imports what no stage may reach", error)
        };
        let pre = self.linker.instantiate_pre(compiled).map_err(refused)?;
        let unfit = |world: &str, error: wasmtime::Error| {
            Error::caused(Kind::Invalid, format!("fit the component into world {world}"), error)
        };
        let exports = self.exports(compiled);
        let is_exported = |interface: &str| exports.iter().any(|export| without_version(export) == interface);
        let world = if is_exported(STAGE_EXPORT) {
            World::Stage(StagePre::new(pre).map_err(|error| unfit("stage", error))?)
        } else if is_exported(FETCHER_EXPORT) {
            World::Fetcher(FetcherPre::new(pre).map_err(|error| unfit("fetcher", error))?)
        } else if is_exported(WRITER_EXPORT) {
            World::Writer(WriterPre::new(pre).map_err(|error| unfit("writer", error))?)
        } else {
            let found = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
            return Err(Error::invalid(format!(
                "find a world: the component exports {found} instead of one of {STAGE_EXPORT}, {FETCHER_EXPORT} and {WRITER_EXPORT}"
            )));
        };
        let mut imports: Vec<String> = imports.iter().map(|import| without_version(import).to_owned()).collect();
        imports.sort_unstable();
        Ok(Component { engine: self.engine.clone(), world, digest, bytes, imports: imports.into() })
    }

    fn imports(&self, compiled: &wasmtime::component::Component) -> Vec<String> {
        compiled.component_type().imports(&self.engine).map(|(name, _)| name.to_owned()).collect()
    }

    fn exports(&self, compiled: &wasmtime::component::Component) -> Vec<String> {
        compiled.component_type().exports(&self.engine).map(|(name, _)| name.to_owned()).collect()
    }
}

/// An engine without anything around it, whose compiled code all engines of this program run.
pub(super) fn bare() -> Result<wasmtime::Engine> {
    let mut config = wasmtime::Config::new();
    // Nothing here is asynchronous on the side of components. Said also where another member of the workspace asks for
    // the feature, so that both builds compile components alike.
    config.epoch_interruption(true).wasm_component_model(true).concurrency_support(false);
    wasmtime::Engine::new(&config).map_err(|error| Error::caused(Kind::Internal, "make the engine", error))
}

const STAGE_EXPORT: &str = "tapeline:pipeline/process";
const FETCHER_EXPORT: &str = "tapeline:pipeline/decode";
const WRITER_EXPORT: &str = "tapeline:pipeline/write";

/// What every component may import: what a language's library drags in, which the host answers with constants, and the
/// types of the contract.
const IMPORTS: [&str; 6] =
    ["tapeline:pipeline/", "wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/"];

fn check_imports(imports: &[String]) -> Result<()> {
    let is_allowed = |import: &&String| IMPORTS.iter().any(|allowed| import.starts_with(allowed));
    match imports.iter().find(|import| !is_allowed(import)) {
        None => Ok(()),
        Some(import) => {
            let allowed = IMPORTS.map(|allowed| format!("{allowed}*")).join(", ");
            Err(Error::invalid(format!(
                "link component: it imports {import}, which no stage may reach; it may import {allowed}"
            )))
        }
    }
}

/// The name of an interface without its version.
fn without_version(interface: &str) -> &str {
    interface.split_once('@').map_or(interface, |(name, _)| name)
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

/// Advances the epoch for as long as the engine lives.
fn tick(engine: wasmtime::EngineWeak) {
    thread::spawn(move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    });
}

/// SHA-256 of bytes, in hex.
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
