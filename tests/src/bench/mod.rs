//! What the benchmarks compare.

pub mod chain;
pub mod invoke;
pub mod layouts;
pub mod plain;
