//! What the whole-system tests and the benchmarks share.

pub mod bench;
pub mod cluster;
pub mod conformance;
pub mod listening;
pub mod live;
pub mod memory_store;
pub mod native;
pub mod proxy;

pub use tapeline_harness::{program, recordings};
