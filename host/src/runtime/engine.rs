//! The engine, and components made ready to be instantiated.

use std::{path::Path, sync::Arc, thread, time::Duration};

use sha2::{Digest, Sha256};
use wasmtime::component::Linker;

use super::{CompiledCache, wasi::HostState};
use crate::{
    contract::{fetcher_world::FetcherPre, stage_world::StagePre, writer_world::WriterPre},
    error::{Context, Error, Kind, Result},
};

/// Length of an epoch: how exactly time limits are kept. A tick costs the host a wake-up.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// A component that is larger is refused before it is read. The largest of ours has 300 kB, one that brings an
/// interpreter of another language has 20 to 40 MB.
const COMPONENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Compiles and runs components. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    engine: wasmtime::Engine,
    linker: Arc<Linker<HostState>>,
    cache: Arc<CompiledCache>,
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
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true).wasm_component_model(true);
        let internal = |error: wasmtime::Error| Error::caused(Kind::Internal, "make the engine", error);
        let engine = wasmtime::Engine::new(&config).map_err(internal)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(internal)?;
        tick(engine.weak());
        Ok(Self { engine, linker: Arc::new(linker), cache: Arc::new(cache) })
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
        let digest: Arc<str> = hex(&Sha256::digest(bytes)).into();
        let compiled = self.cache.compile(&self.engine, &digest, bytes)?;
        let refused = |error: wasmtime::Error| {
            Error::caused(Kind::Invalid, "link component: it imports what no stage may reach", error)
        };
        let pre = self.linker.instantiate_pre(&compiled).map_err(refused)?;
        let world = if let Ok(pre) = StagePre::new(pre.clone()) {
            World::Stage(pre)
        } else if let Ok(pre) = FetcherPre::new(pre.clone()) {
            World::Fetcher(pre)
        } else if let Ok(pre) = WriterPre::new(pre) {
            World::Writer(pre)
        } else {
            let message = "find a world: the component exports none of tapeline:pipeline/process, decode and write";
            return Err(Error::invalid(message));
        };
        Ok(Component { engine: self.engine.clone(), world, digest })
    }
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

/// Bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
