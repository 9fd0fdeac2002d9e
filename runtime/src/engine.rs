//! The engine, and compiled components made ready to be instantiated.

use std::{sync::Arc, thread, time::Duration};

use sha2::{Digest, Sha256};
use tapeline_invoke::{
    Role,
    contract::{fetcher_world::FetcherPre, stage_world::StagePre, writer_world::WriterPre},
};
use wasmtime::component::Linker;

use crate::wasi::HostState;

/// Length of an epoch: how exactly time limits are kept. A tick costs the host a wake-up.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// A component that is larger is refused before it is read. The largest of ours has 300 kB, one that brings an
/// interpreter of another language has 20 to 40 MB.
pub const COMPONENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Runs components. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    engine: wasmtime::Engine,
    linker: Arc<Linker<HostState>>,
}

/// Why a component cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// It is not what it should be. The text reads on after "failed to".
    #[error("{message}")]
    Unfit {
        /// What was found, and what was expected.
        message: String,
        /// What the engine said.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// This machine runs none.
    #[error("make the engine")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl RuntimeError {
    fn unfit(message: impl Into<String>) -> Self {
        Self::Unfit { message: message.into(), source: None }
    }

    fn caused(message: impl Into<String>, source: wasmtime::Error) -> Self {
        Self::Unfit { message: message.into(), source: Some(source.into()) }
    }
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

    /// What it is good for.
    pub const fn role(&self) -> Role {
        match self.world {
            World::Fetcher(_) => Role::Fetcher,
            World::Stage(_) => Role::Stage,
            World::Writer(_) => Role::Writer,
        }
    }
}

impl Engine {
    /// An engine whose compiled code all engines of this version and these features run.
    ///
    /// # Errors
    /// When the machine cannot run compiled code.
    pub fn new() -> Result<Self, RuntimeError> {
        let internal = |error: wasmtime::Error| RuntimeError::Engine(error.into());
        let engine = Self::bare()?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(internal)?;
        tick(engine.weak());
        Ok(Self { engine, linker: Arc::new(linker) })
    }

    /// An engine without anything around it, to compile for the others.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn bare() -> Result<wasmtime::Engine, RuntimeError> {
        wasmtime::Engine::new(&Self::config()).map_err(|error| RuntimeError::Engine(error.into()))
    }

    /// What all engines have in common.
    pub fn config() -> wasmtime::Config {
        let mut config = wasmtime::Config::new();
        // Nothing here is asynchronous on the side of components. Said also where another member of the workspace asks for
        // the feature, so that both builds compile components alike.
        config.epoch_interruption(true).wasm_component_model(true).concurrency_support(false);
        config
    }

    /// The engine itself.
    pub const fn engine(&self) -> &wasmtime::Engine {
        &self.engine
    }

    /// Finds the world of a compiled component.
    ///
    /// # Errors
    /// When it is of none, or imports what no stage may reach.
    pub fn fit(
        &self,
        compiled: &wasmtime::component::Component,
        digest: Arc<str>,
        bytes: u64,
    ) -> Result<Component, RuntimeError> {
        let imports = self.imports(compiled);
        check_imports(&imports)?;
        let refused =
            |error: wasmtime::Error| RuntimeError::caused("link component: it imports what no stage may reach", error);
        let pre = self.linker.instantiate_pre(compiled).map_err(refused)?;
        let unfit = |world: &str, error: wasmtime::Error| {
            RuntimeError::caused(format!("fit the component into world {world}"), error)
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
            return Err(RuntimeError::unfit(format!(
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

const STAGE_EXPORT: &str = "tapeline:pipeline/process";
const FETCHER_EXPORT: &str = "tapeline:pipeline/decode";
const WRITER_EXPORT: &str = "tapeline:pipeline/write";

/// What every component may import: what a language's library drags in, which the host answers with constants, and the
/// types of the contract.
const IMPORTS: [&str; 6] =
    ["tapeline:pipeline/", "wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/"];

fn check_imports(imports: &[String]) -> Result<(), RuntimeError> {
    let is_allowed = |import: &&String| IMPORTS.iter().any(|allowed| import.starts_with(allowed));
    match imports.iter().find(|import| !is_allowed(import)) {
        None => Ok(()),
        Some(import) => {
            let allowed = IMPORTS.map(|allowed| format!("{allowed}*")).join(", ");
            Err(RuntimeError::unfit(format!(
                "link component: it imports {import}, which no stage may reach; it may import {allowed}"
            )))
        }
    }
}

/// The name of an interface without its version.
fn without_version(interface: &str) -> &str {
    interface.split_once('@').map_or(interface, |(name, _)| name)
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
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
