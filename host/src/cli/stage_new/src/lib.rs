//! Leaves small trades out, but for a sample of them.
//!
//! * **Input:** trades. Other kinds pass by.
//! * **Output:** trades of at least `minimum`, and each `sample`-th of the smaller ones.
//! * **State:** per symbol, how many small trades there were.
//! * **Settings:** `minimum`, `sample`.
//! * **Failures:** a trade without a size is rejected.

use serde::{Deserialize, Serialize};
use tapeline_sdk::{Event, Events, Fate, Kind, Kinds, Saved, SettingError, Stage};

/// Event time, ns, after the last trade of a symbol for which its state is kept: a day.
const KEEP: i64 = 86_400_000_000_000;

/// The stage. What it knows of the past is in the state of a symbol, not here: an instance may be a new one at any time.
#[derive(Debug)]
pub struct MyStage {
    settings: Settings,
    watermark: i64,
}

/// Settings as the pipeline file has them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Smallest size that always goes on.
    pub minimum: f64,
    /// Every so many small trades of a symbol, one goes on; 0: none.
    #[serde(default)]
    pub sample: u64,
}

/// What is kept for a symbol. Raise [`Saved::VERSION`] with every change of its layout.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct SymbolState {
    small_count: u64,
    expires_at: Option<i64>,
}

impl Saved for SymbolState {
    fn expires_at(&self) -> Option<i64> {
        self.expires_at
    }
}

impl Stage for MyStage {
    const NAME: &'static str = env!("CARGO_PKG_NAME");
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;
    type State = SymbolState;
    type Out = Events;

    fn new(settings: Settings) -> Result<Self, SettingError> {
        if settings.minimum.is_finite() && settings.minimum > 0.0 {
            Ok(Self { settings, watermark: i64::MIN })
        } else {
            Err(SettingError::new("minimum", "a size above 0"))
        }
    }

    fn takes(&self) -> Kinds {
        Kinds::of(&[Kind::Trade])
    }

    fn on_event(&mut self, event: Event<'_>, state: &mut SymbolState, _: &mut Events) -> Fate {
        let Some(trade) = event.trade() else { return Fate::Forward };
        if trade.size.is_nan() {
            return Fate::Reject("size: the vendor gave none".to_owned());
        }
        // A trade may come behind the watermark, and then its state must not be over before it is saved.
        let now = event.time().max(self.watermark);
        state.expires_at = state.expires_at.max(Some(now.saturating_add(KEEP)));
        if trade.size >= self.settings.minimum {
            return Fate::Forward;
        }
        state.small_count += 1;
        let is_sample = self.settings.sample > 0 && state.small_count.is_multiple_of(self.settings.sample);
        if is_sample { Fate::Forward } else { Fate::Drop("small") }
    }

    fn on_watermark(&mut self, watermark: i64) {
        self.watermark = watermark;
    }
}

tapeline_sdk::export_stage!(MyStage);

#[cfg(test)]
mod tests {
    use tapeline_sdk::testing::Harness;

    use super::*;

    fn stage(settings: &str) -> Harness<MyStage> {
        Harness::new(settings).unwrap()
    }

    fn trade(symbol: &str, second: u32, size: f64) -> String {
        format!(
            r#"{{"kind":"trade","symbol":"{symbol}","time":"2024-08-08T00:00:{second:02}Z","price":1,"size":{size}}}"#
        )
    }

    #[test]
    fn small_trades_are_dropped() {
        let mut stage = stage(r#"{"minimum": 1}"#);
        stage.feed(&[trade("X", 1, 0.5), trade("X", 2, 1.0), trade("Y", 3, 2.0)].join("\n"));
        assert_eq!((stage.count("forward"), stage.dropped("small")), (2, 1));
    }

    #[test]
    fn each_symbol_is_sampled_by_itself() {
        let mut stage = stage(r#"{"minimum": 1, "sample": 2}"#);
        stage.feed(&[trade("X", 1, 0.5), trade("Y", 2, 0.5), trade("X", 3, 0.5)].join("\n"));
        let out = stage.out();
        assert!(out.len() == 1 && out[0].contains("00:00:03"), "{out:?}");
    }

    #[test]
    fn how_the_trades_are_cut_does_not_show() {
        let trades: Vec<_> = (0..50).map(|at| trade(if at % 3 == 0 { "X" } else { "Y" }, at, 0.5)).collect();
        let settings = r#"{"minimum": 1, "sample": 4}"#;
        let (mut whole, mut cut) = (stage(settings), stage(settings));
        whole.feed(&trades.join("\n"));
        for trade in &trades {
            cut.feed(trade);
            cut.restart().unwrap();
        }
        assert_eq!(whole.out(), cut.out());
    }

    #[test]
    fn a_minimum_that_cannot_be_used_is_named() {
        for settings in [r#"{"minimum": 0}"#, r#"{"minimum": -1}"#, "{}", r#"{"minimum": 1, "sampel": 2}"#] {
            assert!(Harness::<MyStage>::new(settings).is_err(), "{settings}");
        }
    }
}
