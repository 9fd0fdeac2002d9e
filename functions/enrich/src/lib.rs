//! Gives trades and quotes their canonical form: symbol, currency, notional and lag.
//!
//! **Input**: trades and quotes as fetch makes them. **Output**: each of them again, with the symbol as
//! `VENUE:SYMBOL` and prices in major currency units; a trade with its notional and its lag as well. **State**: none.
//! **Settings**: see [`Settings`]. **Failures**: none; every trade and quote comes out.

mod enrich;
mod settings;

pub use enrich::Enrich;
pub use settings::{Instrument, Settings};

tapeline_sdk::export_stage!(Enrich);
