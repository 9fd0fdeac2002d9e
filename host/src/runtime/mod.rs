//! Runs components: engine, limits, compiled code, instances. Knows WebAssembly, nothing of pipelines or stores.

mod cache;
mod engine;
mod instance;
mod wasi;

pub use cache::CompiledCache;
pub(crate) use engine::World;
pub(crate) use engine::hex;
pub use engine::{Component, Engine};
pub(crate) use instance::instantiate;
pub use instance::{Fault, Instance, Limits, WasmInstance};
