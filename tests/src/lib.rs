//! What the whole-system tests and the benchmarks share.

pub mod native;
pub mod program;
pub mod recordings;
