//! The first stage: turns what a vendor sent into events.
//!
//! **Input**: frames with the name of their format: `binance`, `finnhub` or `events`. A frame is one message of the
//! vendor, or one JSON line. **Output**: trades, notices of the feed itself, and with `events` any kind. What is no
//! event is dropped by a rule with a name. **State**: none; each frame is decoded by itself. **Settings**: none.
//!
//! **Failures**: a frame, or one trade in it, that cannot be used is rejected with the field, the value and what would
//! be right. No bytes make this stage fail: every record is emitted, dropped or rejected.

mod binance;
mod events;
mod fetch;
mod finnhub;
mod record;
mod settings;

pub use fetch::Fetch;
pub use settings::Settings;

tapeline_sdk::export_fetcher!(Fetch);
