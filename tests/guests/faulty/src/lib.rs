//! A stage that fails on some trades, in the way that its settings say: what a host must survive.
//!
//! It counts the trades of each symbol in its state, and drops every thousandth by the rule `counted`, so that a host
//! that loses or repeats a trade of the state is found out.

#![allow(clippy::panic, reason = "it is what this stage is for")]

use std::cell::Cell;

use serde::{Deserialize, Serialize, Serializer};
use tapeline_sdk::{Event, Events, Fate, IdRef, Kind, Kinds, Saved, SettingError, Stage};

/// Fails on every trade whose id leaves `remainder` when divided by `every`.
pub struct Faulty(Settings);

/// How to fail, and when.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    fault: Fault,
    every: u64,
    remainder: u64,
    /// Fails already when it is given its settings.
    #[serde(default)]
    at_start: bool,
    /// Panics when it is to say what has changed in its state.
    #[serde(default)]
    at_checkpoint: bool,
}

/// What happens.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// It panics.
    Trap,
    /// It never comes back.
    Loop,
    /// It allocates until there is no more.
    Allocate,
    /// It refuses the trade, as a stage should.
    Reject,
}

impl Fault {
    /// Does not come back, unless it is a refusal.
    fn happen(&self, id: u64) {
        match self {
            Self::Trap => panic!("trade {id} is too much"),
            Self::Loop => spin(id),
            Self::Allocate => hoard(),
            Self::Reject => {}
        }
    }
}

/// Trades of a symbol that did not fail.
#[derive(Default, Serialize, Deserialize)]
pub struct Count(#[serde(serialize_with = "count")] u64);

thread_local! {
    static PANICS_AT_CHECKPOINT: Cell<bool> = const { Cell::new(false) };
}

fn count<S: Serializer>(count: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    assert!(!PANICS_AT_CHECKPOINT.get(), "a count of {count} is a secret");
    serializer.serialize_u64(*count)
}

impl Saved for Count {}

impl Stage for Faulty {
    const NAME: &'static str = "faulty";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;
    type State = Count;
    type Out = Events;

    fn new(settings: Settings) -> Result<Self, SettingError> {
        if settings.every == 0 {
            return Err(SettingError::new("every", "above 0"));
        }
        PANICS_AT_CHECKPOINT.set(settings.at_checkpoint);
        if settings.at_start {
            settings.fault.happen(0);
        }
        Ok(Self(settings))
    }

    fn takes(&self) -> Kinds {
        Kinds::of(&[Kind::Trade])
    }

    fn on_event(&mut self, event: Event<'_>, state: &mut Count, _: &mut Events) -> Fate {
        if let IdRef::Number(id) = event.id()
            && id % self.0.every == self.0.remainder
        {
            self.0.fault.happen(id);
            return Fate::Reject(format!("trade {id} is not wanted"));
        }
        state.0 += 1;
        if state.0.is_multiple_of(1_000) { Fate::Drop("counted") } else { Fate::Forward }
    }
}

fn spin(mut id: u64) {
    while std::hint::black_box(id) != u64::MAX {
        id &= 1;
    }
}

fn hoard() {
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    loop {
        hoard.push(vec![1; 1 << 20]);
        std::hint::black_box(&hoard);
    }
}

tapeline_sdk::export_stage!(Faulty);
