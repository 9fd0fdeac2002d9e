//! The host of Tapeline: runs pipelines of WebAssembly stages over market events and loses nothing.
//!
//! Dependencies point one way: cli and trigger use pipeline, pipeline uses segment, segment uses runtime, store and
//! objects. ARCHITECTURE.md has the whole picture.

pub mod bus;
pub mod cli;
pub mod connector;
pub mod error;
pub mod metrics;
pub mod objects;
pub mod pipeline;
pub mod registry;
pub mod runtime;
pub mod segment;
pub mod store;
pub mod trigger;

pub use tapeline_invoke::{batch, contract, names};
