//! Makes components ready to run: compiler, compiled code, and what runs it (crate `tapeline-runtime`). Knows WebAssembly,
//! nothing of pipelines or stores.

mod apart;
mod cache;
mod engine;
mod functions;

pub use apart::CompileLimits;
pub(crate) use apart::{REFUSED as COMPILE_REFUSED, compile_here};
pub use cache::CompiledCache;
pub use engine::Engine;
pub use functions::{Architecture, Compiled, FunctionCompiler};
pub use tapeline_runtime::{COMPONENT_BYTES_MAX, Component, Fault, Instance, Limits, WasmInstance, digest};
pub(crate) use tapeline_runtime::{hex, instantiate, setting_text};
