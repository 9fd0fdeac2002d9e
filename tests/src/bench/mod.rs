//! What the benchmarks compare.

pub mod chain;
pub mod plain;
