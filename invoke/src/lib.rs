//! What a call of a stage is, the same in every runtime.
//!
//! Our host calls compiled components; a Spin component calls the stage that it was composed with. Both must answer the
//! same bytes, so that all between a body and an answer is here, once: the contract's types, batches in motion, names,
//! bodies, answers, problem documents. It knows nothing of engines, stores, sockets or clocks.
//!
//! The contract's types come from `wit/` by another generator for each side: wasmtime's where the crate is compiled for a
//! host, wit-bindgen's where it is compiled into a component. They have the same names and fields.

pub mod admit;
pub mod answer;
pub mod batch;
pub mod body;
mod call;
pub mod contract;
mod counts;
mod hop;
pub mod names;
mod object_path;
pub mod problem;
mod row_lines;
mod tally;
mod token;
mod watermark;

pub use answer::{Invoked, NOT_WRITTEN, Passed};
pub use call::{Asking, CallError, Callee, Caller, NoState, StateOf};
pub use counts::{Counts, LedgerKey, Role, Value};
pub use hop::{Hop, partition_of};
pub use object_path::check_object_path;
pub use row_lines::{cell, cell_count, json, row_count, write_append, write_rows};
pub use tally::{Tally, WATERMARK_STAGE};
pub use token::{AdminToken, TOKEN_BYTES_MIN};
pub use watermark::{Assigned, Early, Watermark, WatermarkSettings};
