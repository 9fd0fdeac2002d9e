//! The stage: compares each average with the one before it.

use serde::{Deserialize, Serialize};
use tapeline_sdk::{Alarm, Average, Event, Events, Fate, Kind, Kinds, Saved, SettingError, Stage};

use crate::settings::{Plan, Settings, Tolerance};

/// Largest deviation that is told. A move away from 0 has no relative size, and infinity cannot be written as JSON.
const DEVIATION_MAX: f64 = 1e300;

/// Raises an alarm when an average moves by more than a tolerance.
#[derive(Debug)]
pub struct Alarms {
    plan: Plan,
    watermark: i64,
}

/// What is kept for a symbol.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct SymbolState {
    /// In the order in which they came first.
    windows: Vec<WindowState>,
    /// Absent until there was an average that counts.
    expires_at: Option<i64>,
}

/// What is kept for a window of a symbol.
#[derive(Debug, Serialize, Deserialize)]
pub struct WindowState {
    window: u64,
    previous: f64,
    /// The time when the last average came: its event time, or the watermark where it came behind that.
    seen_at: i64,
    /// Event time from which on another alarm may be raised.
    armed_at: i64,
}

impl Saved for SymbolState {
    fn expires_at(&self) -> Option<i64> {
        Some(self.expires_at.unwrap_or(i64::MIN))
    }
}

impl Stage for Alarms {
    const NAME: &'static str = "alarm";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;
    type State = SymbolState;
    type Out = Events;

    fn new(settings: Settings) -> Result<Self, SettingError> {
        Ok(Self { plan: Plan::try_from(settings)?, watermark: i64::MIN })
    }

    fn takes(&self) -> Kinds {
        Kinds::of(&[Kind::Average])
    }

    fn gives(&self) -> Kinds {
        Kinds::of(&[Kind::Alarm])
    }

    #[inline]
    fn on_event(&mut self, event: Event<'_>, state: &mut SymbolState, out: &mut Events) -> Fate {
        let Some(average) = event.average() else { return Fate::Forward };
        if !average.average.is_finite() {
            return Fate::Reject("average: not a finite number".to_owned());
        }
        if !self.plan.windows.is_empty() && !self.plan.windows.contains(&average.window) {
            return Fate::Forward;
        }
        // What comes behind the watermark must not have expired before it is saved: a host may delete what has.
        let now = event.time().max(self.watermark);
        let Some(window) = state.window(average.window) else {
            state.watch(&average, now, &self.plan);
            return Fate::Forward;
        };
        window.seen_at = window.seen_at.max(now);
        if let Some(alarm) = window.compare(&average, event.time(), &self.plan) {
            out.emit(&event.envelope(), alarm);
        }
        let needed_until = window.needed_until(self.plan.keep);
        state.expires_at = state.expires_at.max(Some(needed_until));
        Fate::Forward
    }

    fn on_watermark(&mut self, watermark: i64) {
        self.watermark = watermark;
    }
}

impl SymbolState {
    #[inline]
    fn window(&mut self, length: u64) -> Option<&mut WindowState> {
        self.windows.iter_mut().find(|window| window.window == length)
    }

    /// Begins to watch a window, and ends to watch those that nothing came of for long.
    #[cold]
    fn watch(&mut self, average: &Average, now: i64, plan: &Plan) {
        self.windows.retain(|window| window.needed_until(plan.keep) > now);
        let window =
            WindowState { window: average.window, previous: average.average, seen_at: now, armed_at: i64::MIN };
        self.expires_at = self.expires_at.max(Some(window.needed_until(plan.keep)));
        self.windows.push(window);
    }
}

impl WindowState {
    /// Puts an average in the place of the previous one; the alarm that it raises, if it does.
    #[inline]
    fn compare(&mut self, average: &Average, time: i64, plan: &Plan) -> Option<Alarm> {
        let previous = std::mem::replace(&mut self.previous, average.average);
        let (deviation, tolerance, relative) = match plan.tolerance {
            Tolerance::Absolute(tolerance) => (absolute(previous, average.average), tolerance, false),
            Tolerance::Relative(tolerance) => (relative(previous, average.average), tolerance, true),
        };
        if deviation <= tolerance || time < self.armed_at {
            return None;
        }
        self.armed_at = time.saturating_add(plan.cooldown);
        let Average { window, average, price, .. } = *average;
        Some(Alarm { window, previous, average, deviation, tolerance, relative, price })
    }

    /// Watermark from which on it may be forgotten: a cooldown is not cut short.
    #[inline]
    fn needed_until(&self, keep: i64) -> i64 {
        self.seen_at.saturating_add(keep).max(self.armed_at)
    }
}

#[inline]
fn absolute(previous: f64, average: f64) -> f64 {
    (average - previous).abs().min(DEVIATION_MAX)
}

/// A move away from 0 is larger than any tolerance.
#[inline]
fn relative(previous: f64, average: f64) -> f64 {
    let moved = (average - previous).abs();
    if moved == 0.0 { 0.0 } else { (moved / previous.abs()).min(DEVIATION_MAX) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tapeline_sdk::{
        Envelope, IdRef, Name, Runner, Unit,
        bindings::events::{Batch, Group, Input},
        format_time,
        testing::Harness,
    };

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn average(symbol: &str, window: &str, at: i64, average: f64) -> String {
        let time = format_time(at * SECOND, Unit::Seconds);
        format!(
            r#"{{"kind":"average","symbol":"{symbol}","time":"{time}","source":"x","id":{at},"window":"{window}","average":{average},"count":2,"price":7}}"#
        )
    }

    fn alarms(stage: &mut Harness<Alarms>) -> Vec<String> {
        stage.out().into_iter().filter(|line| line.contains(r#""kind":"alarm""#)).collect()
    }

    /// The seconds at which averages of one window, one a second from 0 on, raise alarms.
    fn alarms_at(settings: &str, averages: &[f64]) -> Vec<usize> {
        let mut stage = Harness::<Alarms>::new(settings).unwrap();
        let raises = |(at, value): (usize, &f64)| {
            stage.feed(&average("X", "5m", at as i64, *value));
            (!alarms(&mut stage).is_empty()).then_some(at)
        };
        averages.iter().enumerate().filter_map(raises).collect()
    }

    #[test]
    fn an_alarm_says_what_raised_it() {
        let mut stage = Harness::<Alarms>::new(r#"{"absolute": 0.5}"#).unwrap();
        stage.feed(&average("X", "5m", 1, 10.0));
        stage.feed(&average("X", "5m", 2, 8.0));
        let expected = r#"{"kind":"alarm","symbol":"X","time":"1970-01-01T00:00:02Z","source":"x","id":2,"price":7,"window":"5m","previous":10,"average":8,"deviation":2,"tolerance":0.5,"relative":false}"#;
        assert_eq!(alarms(&mut stage), [expected]);
        assert_eq!(stage.count("forward"), 2);
    }

    #[test]
    fn only_more_than_the_tolerance_raises_one() {
        assert_eq!(alarms_at(r#"{"absolute": 0.5}"#, &[1.0, 1.5, 2.25, 1.75, 1.0]), [2, 4]);
        assert_eq!(alarms_at(r#"{"absolute": 0}"#, &[1.0, 1.0, 1.5]), [2]);
        assert_eq!(alarms_at(r#"{"relative": 0.5}"#, &[4.0, 6.0, 9.5, 4.0]), [2, 3]);
        assert_eq!(alarms_at(r#"{"relative": 1e9}"#, &[0.0, 0.0, 0.001, 0.0]), [2], "away from 0, not back to it");
    }

    #[test]
    fn a_cooldown_holds_alarms_back_but_not_the_comparison() {
        let settings = r#"{"absolute": 0.5, "cooldown": "3s"}"#;
        assert_eq!(alarms_at(settings, &[1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 5.0, 5.0, 6.0]), [1, 4, 8]);
    }

    #[test]
    fn symbols_and_windows_are_compared_with_themselves() {
        let mut stage = Harness::<Alarms>::new(r#"{"absolute": 0.5, "windows": ["5m", "1h"]}"#).unwrap();
        for (symbol, window, value) in [("X", "5m", 1.0), ("X", "1h", 9.0), ("Y", "5m", 5.0), ("X", "10m", 1.0)] {
            stage.feed(&average(symbol, window, 1, value));
        }
        assert!(alarms(&mut stage).is_empty());
        stage.feed(&average("X", "10m", 2, 9.0));
        assert!(alarms(&mut stage).is_empty(), "not a window to watch");
        stage.feed(&average("X", "1h", 2, 1.0));
        assert_eq!(alarms(&mut stage).len(), 1);
    }

    #[test]
    fn what_is_no_number_is_rejected_and_not_remembered() {
        let mut stage = Runner::<Alarms>::new(r#"{"absolute": 0.5}"#).unwrap();
        let envelope = Envelope {
            symbol: Name(0),
            source: Name(0),
            time: 0,
            unit: Unit::Seconds,
            received: None,
            id: IdRef::Absent,
        };
        let mut group = Group::for_events_like(&envelope, Kind::Average);
        for average in [1.0, f64::NAN, f64::INFINITY, 1.25] {
            group.push(&envelope, Average { window: 5, average, count: 1, price: 1.0 }.into());
        }
        let events = Batch { groups: vec![group], order: Vec::new(), marks: Vec::new() };
        let output = stage.process(Input { names: vec!["X".to_owned()], events });
        assert_eq!(output.fates, [0, 4, 4, 0]);
        assert!(output.emitted.groups.is_empty());
    }

    #[test]
    fn a_symbol_is_forgotten_after_a_while_but_not_within_a_cooldown() {
        let run = |settings: &str| {
            let mut stage = Harness::<Alarms>::new(settings).unwrap();
            stage.feed(&average("X", "5m", 0, 1.0));
            stage.feed(&average("X", "5m", 1, 9.0));
            stage.advance(61 * SECOND);
            stage.checkpoint();
            stage.feed(&average("X", "5m", 62, 1.0));
            (stage.saved().len(), alarms(&mut stage).len())
        };
        assert_eq!(run(r#"{"absolute": 0.5}"#), (1, 2));
        assert_eq!(run(r#"{"absolute": 0.5, "keep": "1m"}"#), (0, 1));
        assert_eq!(run(r#"{"absolute": 0.5, "keep": "1m", "cooldown": "2m"}"#), (1, 1));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Average(usize, usize, i64, u32),
        Mark(i64),
        Cut,
        Restart,
    }

    const WINDOWS: [&str; 3] = ["5m", "10m", "15m"];
    const SYMBOLS: [&str; 2] = ["B", "A"];

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => (0_usize..2, 0_usize..3, 0_i64..9, 0_u32..12).prop_map(|(s, w, t, v)| Step::Average(s, w, t, v)),
            1 => (0_i64..40).prop_map(Step::Mark),
            1 => Just(Step::Cut),
            1 => Just(Step::Restart),
        ];
        prop::collection::vec(step, 1..200).prop_map(|steps| {
            let mut now = 100;
            let place = |step| match step {
                Step::Average(symbol, window, late, value) => {
                    now += 3;
                    Step::Average(symbol, window, now - late, value)
                }
                Step::Mark(ahead) => {
                    now += ahead;
                    Step::Mark(now)
                }
                other => other,
            };
            steps.into_iter().map(place).collect()
        })
    }

    fn run(settings: &str, steps: &[Step], is_cut: bool) -> Vec<String> {
        let mut stage = Harness::<Alarms>::new(settings).unwrap();
        let mut batch = String::new();
        for step in steps {
            match *step {
                Step::Average(symbol, window, at, value) => {
                    batch.push_str(&average(SYMBOLS[symbol], WINDOWS[window], at, f64::from(value) / 4.0));
                }
                Step::Mark(at) => {
                    let time = format_time(at * SECOND, Unit::Seconds);
                    batch.push_str(&format!(r#"{{"kind":"watermark","time":"{time}"}}"#));
                }
                Step::Cut if is_cut => stage.feed(&std::mem::take(&mut batch)),
                Step::Restart if is_cut => {
                    stage.feed(&std::mem::take(&mut batch));
                    stage.checkpoint();
                    stage.expire();
                    stage.restart().unwrap();
                }
                Step::Cut | Step::Restart => {}
            }
            batch.push('\n');
        }
        stage.feed(&batch);
        stage.out()
    }

    proptest! {
        #[test]
        fn cuts_and_restarts_do_not_show(steps in steps(), is_relative: bool, keep_s in 1_u32..20) {
            let tolerance = if is_relative { "relative" } else { "absolute" };
            let settings = format!(r#"{{"{tolerance}": 0.5, "cooldown": "4s", "keep": "{keep_s}s"}}"#);
            prop_assert_eq!(run(&settings, &steps, true), run(&settings, &steps, false));
        }

        #[test]
        fn alarms_are_what_the_definition_says(values in prop::collection::vec(0_u32..40, 1..100), cooldown in 0_usize..5) {
            let values: Vec<f64> = values.into_iter().map(|value| f64::from(value) / 8.0).collect();
            let mut expected: Vec<usize> = Vec::new();
            for at in 1..values.len() {
                let is_cool = expected.last().is_none_or(|last| at >= last + cooldown);
                if is_cool && (values[at] - values[at - 1]).abs() > 1.0 {
                    expected.push(at);
                }
            }
            prop_assert_eq!(alarms_at(&format!(r#"{{"absolute": 1, "cooldown": "{cooldown}s"}}"#), &values), expected);
        }
    }
}
