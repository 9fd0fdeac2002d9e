//! How many alarms each of several tolerances would have given.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use tapeline_events::{Number, Span};

use super::{
    Recorded, Used, as_whole,
    fork::{Forked, alarms_of},
    memory::MemoryState,
    raw::{self, RawInput},
    sink::Sink,
    versions::Cast,
    window::Window,
    windowed,
};
use crate::{
    error::{Error, Result},
    segment::{Blueprint, Role},
    store::StateStore as _,
};

/// Tolerances that are tried at once. Each is an instance, with some MiB of memory of its own.
pub const STEPS_MAX: usize = 100;
/// The settings that are a tolerance.
const TOLERANCES: [&str; 2] = ["absolute", "relative"];

/// The tolerances to try.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerances {
    /// The smallest.
    pub from: f64,
    /// The largest.
    pub to: f64,
    /// How many, evenly spaced, both ends included: 2 at least. One if the ends are the same.
    pub steps: usize,
}

/// What is tried, on what.
#[derive(Clone, Debug)]
pub struct Backtest {
    /// The stage that gives alarms.
    pub stage: String,
    /// With which tolerances.
    pub tolerances: Tolerances,
    /// On the events of this window.
    pub window: Window,
}

/// What came of a backtest.
#[derive(Clone, Debug)]
pub struct Tested {
    /// The setting that was changed.
    pub setting: &'static str,
    /// The alarms, by tolerance, from the smallest on.
    pub counts: Vec<Counted>,
    /// What ran, up to the stage that gives alarms.
    pub stages: Vec<Used>,
}

/// The alarms of a tolerance.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// The tolerance.
    pub tolerance: f64,
    /// All of them.
    pub total: u64,
    /// By symbol and window. All tolerances have the same symbols and windows: those with an alarm at any of them.
    pub alarms: Vec<(String, Span, u64)>,
}

impl Tolerances {
    /// Each of them, as short as it can be written: with at most 15 digits, without the noise of a division.
    ///
    /// # Errors
    /// `Invalid` when they are not finite, below 0, not in order, or too many.
    pub fn each(&self) -> Result<Vec<f64>> {
        let Self { from, to, steps } = *self;
        if !(from.is_finite() && to.is_finite() && 0.0 <= from && from <= to) {
            let (from, to) = (Number(from), Number(to));
            return Err(Error::invalid(format!(
                "try tolerances {from} to {to}: they are finite, not below 0, in order"
            )));
        }
        if !(1..=STEPS_MAX).contains(&steps) {
            return Err(Error::invalid(format!("try {steps} tolerances: 1 to {STEPS_MAX} can be tried at once")));
        }
        if from < to && steps == 1 {
            let (from, to) = (Number(from), Number(to));
            return Err(Error::invalid(format!(
                "try {from} to {to} in 1 step: a range has both its ends, so 2 steps or more; or name one tolerance"
            )));
        }
        if from == to {
            return Ok(vec![from]);
        }
        let last = (steps - 1) as f64;
        let step = |at: usize| Number(from + (to - from) * (at as f64 / last)).rounded();
        Ok((0..steps).map(|at| if at + 1 == steps { to } else { step(at) }).collect())
    }
}

impl Recorded {
    /// Counts the alarms that each tolerance would have given, in one pass over the stored raw input.
    ///
    /// Alarms are counted as they are given out. A table keeps one of those with the same symbol, window, time and trade.
    ///
    /// # Errors
    /// `Invalid` when the stage has no tolerance or the tolerances are none; otherwise as [`Recorded::replay`].
    pub fn backtest(&self, backtest: &Backtest) -> Result<Tested> {
        let tolerances = backtest.tolerances.each()?;
        let index = self.stage_index(&backtest.stage)?;
        let reader = self.reader()?;
        let cast = self.versions(&reader).choose(&BTreeMap::new())?;
        let raw = RawInput::of(self.reader()?, backtest.window)?;
        let (setting, fork) = fork(&cast, index, &tolerances)?;
        let mut stages = cast.blueprints();
        stages.truncate(index);
        stages.extend([Box::new(fork) as Box<dyn Blueprint>, Box::new(Sink)]);
        let mut worker = self.worker(windowed(stages, backtest.window), MemoryState::default())?;
        for piece in raw.pieces(&[]) {
            worker.take(piece?.work, as_whole())?;
        }
        worker.take(raw::end().work, as_whole())?;
        worker.commit()?;
        let state = worker.into_store().state(&backtest.stage)?;
        let mut used = cast.used;
        used.truncate(index + 1);
        Ok(Tested { setting, counts: count(&tolerances, alarms_of(&state, tolerances.len())?), stages: used })
    }

    fn stage_index(&self, stage: &str) -> Result<usize> {
        self.pipeline.stages.iter().position(|known| known.name == stage).ok_or_else(|| {
            let with_tolerance =
                |stage: &&super::super::spec::Stage| setting_of(&settings_of(&stage.settings)).is_some();
            let fitting: Vec<&str> =
                self.pipeline.stages.iter().filter(with_tolerance).map(|stage| stage.name.as_str()).collect();
            let fitting = if fitting.is_empty() { "none".to_owned() } else { fitting.join(", ") };
            Error::invalid(format!(
                "test stage {stage:?}: the pipeline has no such stage; with a tolerance it has {fitting}"
            ))
        })
    }
}

/// A stage as many times as there are tolerances.
fn fork(cast: &Cast, index: usize, tolerances: &[f64]) -> Result<(&'static str, Forked)> {
    let missing = || Error::invalid("find the stage to test");
    let stage = cast.stages.get(index).ok_or_else(missing)?;
    let (name, role) = (stage.name(), stage.role());
    if role != Role::Stage {
        return Err(Error::invalid(format!("test stage {name}: it is a {role}, which gives no alarms")));
    }
    let settings = settings_of(stage.settings());
    let no_tolerance = || {
        let [absolute, relative] = TOLERANCES;
        Error::invalid(format!("test stage {name}: its settings have neither {absolute} nor {relative}"))
    };
    let setting = setting_of(&settings).ok_or_else(no_tolerance)?;
    let with = |tolerance: &f64| {
        let mut settings = settings.clone();
        settings.insert(setting.to_owned(), Value::from(*tolerance));
        Box::new(stage.with_settings(&Value::Object(settings).to_string())) as Box<dyn Blueprint>
    };
    Ok((setting, Forked(tolerances.iter().map(with).collect())))
}

fn settings_of(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}

fn setting_of(settings: &Map<String, Value>) -> Option<&'static str> {
    TOLERANCES.into_iter().find(|name| settings.contains_key(*name))
}

fn count(tolerances: &[f64], alarms: Vec<super::fork::Alarms>) -> Vec<Counted> {
    let keys: BTreeSet<(String, u64)> = alarms.iter().flat_map(|alarms| alarms.keys().cloned()).collect();
    let of = |(tolerance, alarms): (&f64, super::fork::Alarms)| {
        let of_key = |key: &(String, u64)| (key.0.clone(), Span(key.1), alarms.get(key).copied().unwrap_or_default());
        let total = alarms.values().sum();
        Counted { tolerance: *tolerance, total, alarms: keys.iter().map(of_key).collect() }
    };
    tolerances.iter().zip(alarms).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(from: f64, to: f64, steps: usize) -> Result<Vec<f64>> {
        Tolerances { from, to, steps }.each()
    }

    #[test]
    fn tolerances_are_evenly_spaced_with_both_ends_and_few_digits() {
        assert_eq!(each(0.1, 0.5, 5).unwrap(), [0.1, 0.2, 0.3, 0.4, 0.5]);
        assert_eq!(each(0.0, 1.0, 2).unwrap(), [0.0, 1.0]);
        let thirds: Vec<String> = each(0.0, 1.0, 4).unwrap().iter().map(|number| Number(*number).to_string()).collect();
        assert_eq!(thirds, ["0", "0.333333333333333", "0.666666666666667", "1"]);
        assert_eq!(each(0.05, 0.05, 10).unwrap(), [0.05]);
        assert_eq!(each(0.05, 0.05, 1).unwrap(), [0.05]);
    }

    #[test]
    fn tolerances_that_cannot_be_are_refused() {
        for (from, to, steps) in [
            (0.5, 0.1, 2),
            (-1.0, 1.0, 2),
            (0.0, f64::INFINITY, 2),
            (f64::NAN, 1.0, 2),
            (0.0, 1.0, 0),
            (0.0, 1.0, 1),
            (0.0, 1.0, 101),
        ] {
            assert_eq!(each(from, to, steps).unwrap_err().kind(), crate::error::Kind::Invalid, "{from} {to} {steps}");
        }
    }

    #[test]
    fn every_tolerance_has_a_count_for_what_any_gave() {
        let alarms = |list: &[(&str, u64, u64)]| {
            list.iter().map(|(symbol, window, count)| (((*symbol).to_owned(), *window), *count)).collect()
        };
        let minute = 60_000_000_000;
        let counts =
            count(&[0.1, 0.2], vec![alarms(&[("A", minute, 3), ("B", minute, 1)]), alarms(&[("A", minute, 2)])]);
        assert_eq!((counts[0].total, counts[1].total), (4, 2));
        assert_eq!(counts[1].alarms, [("A".to_owned(), Span(minute), 2), ("B".to_owned(), Span(minute), 0)]);
    }
}
