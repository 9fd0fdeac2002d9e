//! The guest SDK: turns a small trait into a Tapeline stage.
//!
//! An author implements [`Stage`] (or [`Decoder`] for a fetch stage) and exports it with one line of a macro; the SDK
//! keeps the state, its timers and its expiry, tracks what changed, and hides the columns behind rows. It refuses to
//! offer a clock, randomness, an environment or a network: a stage depends on its settings, its state and its input.
//!
//! ```
//! use tapeline_sdk::{Event, Events, Fate, Kind, Kinds, Stage};
//!
//! /// Drops trades below a size.
//! struct Large(f64);
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Settings {
//!     size: f64,
//! }
//!
//! impl Stage for Large {
//!     const NAME: &'static str = "large";
//!     const VERSION: &'static str = "0.1.0";
//!     type Settings = Settings;
//!     type State = ();
//!     type Out = Events;
//!
//!     fn new(settings: Settings) -> Result<Self, tapeline_sdk::SettingError> {
//!         Ok(Self(settings.size))
//!     }
//!
//!     fn takes(&self) -> Kinds {
//!         Kinds::of(&[Kind::Trade])
//!     }
//!
//!     fn on_event(&mut self, event: Event<'_>, (): &mut (), _: &mut Events) -> Fate {
//!         if event.trade().is_some_and(|trade| trade.size >= self.0) { Fate::Forward } else { Fate::Drop("small") }
//!     }
//! }
//!
//! let mut large = tapeline_sdk::testing::Harness::<Large>::new(r#"{"size": 1}"#).unwrap();
//! large.feed(r#"{"kind":"trade","symbol":"X","time":"2024-08-08T23:54:15Z","price":1,"size":0.5}"#);
//! assert_eq!(large.out(), [""; 0]);
//! assert_eq!(large.dropped("small"), 1);
//! ```

pub mod bindings;
mod decoder;
mod event;
mod events_out;
mod export;
mod names;
mod runner;
mod settings;
mod stage;
mod state;
mod tables_out;
pub mod testing;
mod timers;

pub use decoder::{Decoded, Decoder, DecoderRunner, Frame, Part};
pub use event::Event;
pub use events_out::Events;
pub use names::Names;
pub use runner::Runner;
pub use settings::SettingError;
pub use stage::{Fate, Kinds, Output, Stage, Wake};
pub use state::{Saved, State, StateError, StateParts};
pub use tables_out::{Cell, Object, Table, Tables};
pub use tapeline_events::{
    Alarm, Average, Bar, Day, Dividend, Entry, Envelope, Gap, IdRef, Kind, Line, Name, Notice, Number, OptionQuote,
    Prediction, Quote, Rate, Row, Span, Split, TextColumn, Trade, Unit, format_time, parse_time,
};

#[doc(hidden)]
pub use wit_bindgen;
