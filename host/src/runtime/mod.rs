//! Runs components: engine, limits, compiled code, instances. Knows WebAssembly, nothing of pipelines or stores.

mod apart;
mod cache;
mod engine;
mod instance;
mod wasi;

pub use apart::CompileLimits;
pub(crate) use apart::{REFUSED as COMPILE_REFUSED, compile_here};
pub use cache::CompiledCache;
pub(crate) use engine::World;
pub(crate) use engine::hex;
pub use engine::{COMPONENT_BYTES_MAX, Component, Engine, digest};
pub use instance::{Fault, Instance, Limits, WasmInstance};
pub(crate) use instance::{instantiate, setting_text};
