//! The market events of Tapeline outside of columns: rows, and JSON lines.
//!
//! Host and functions share the contract in `wit/` and this crate, nothing else. It exists because text events are read
//! and written on both sides (by fetch in a component, by the host's HTTP triggers), and one schema must have one
//! definition. It refuses to know anything about batches in motion: delivery, state and clocks are the host's.

mod columns;
mod envelope;
mod kinds;
mod line;
mod number;
mod time;

pub use columns::{TextColumn, push_optional};
pub use envelope::{Envelope, IdRef};
pub use kinds::*;
pub use line::{Entry, Id, Line, LineError};
pub use number::Number;
pub use time::{Day, Span, TimeError, Unit, format_time, parse_time};
