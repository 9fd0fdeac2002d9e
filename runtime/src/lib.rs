//! Runs compiled components: engine, limits, instances, and what they find around them. Knows WebAssembly, nothing of
//! pipelines or stores, and has no compiler: compiled code comes from a program that has one.

mod compiled;
mod engine;
mod instance;
mod wasi;

pub use compiled::{COMPILED, compiled_name, deserialize, open, seal, unseal, unsealed};
pub use engine::{COMPONENT_BYTES_MAX, Component, Engine, RuntimeError, digest, hex};
pub use instance::{Fault, Instance, Limits, WasmInstance, instantiate, setting_text};
