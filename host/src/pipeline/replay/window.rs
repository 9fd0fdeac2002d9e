//! A window of event time: what is outside of it is left out behind the first stage, and counted.

use std::{collections::BTreeMap, fmt, time::Duration};

use tapeline_events::{Day, Unit, format_time};

use crate::{
    batch,
    contract::{Decoded, Description, Dropped, Entry, Frames, Input, Output, Written},
    runtime::{Fault, Instance},
};

/// The rule by which the ledger counts what is outside of a window.
pub const OUTSIDE_WINDOW: &str = "outside-window";

/// Event times from one to another, ns since the epoch; open where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Window {
    /// The first time in it.
    #[serde(serialize_with = "as_text")]
    pub from: Option<i64>,
    /// The first time behind it.
    #[serde(serialize_with = "as_text")]
    pub to: Option<i64>,
}

#[expect(clippy::ref_option, reason = "serde calls it so")]
fn as_text<S: serde::Serializer>(time: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&time.map(text), serializer)
}

fn text(time: i64) -> String {
    format_time(time, Unit::Nanoseconds)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |time: Option<i64>, open: &str| time.map_or_else(|| open.to_owned(), text);
        write!(f, "{} to before {}", end(self.from, "the beginning"), end(self.to, "the end"))
    }
}

impl Window {
    /// Whether there is no time outside of it.
    pub const fn is_everything(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }

    /// Whether a time is in it.
    #[inline]
    pub fn holds(&self, time: i64) -> bool {
        self.from.is_none_or(|from| from <= time) && self.to.is_none_or(|to| time < to)
    }
}

/// A decoder that gives out only the events of a window.
pub(super) struct Windowed {
    inner: Box<dyn Instance>,
    window: Window,
}

impl Windowed {
    /// A window around a decoder.
    pub(super) fn new(inner: Box<dyn Instance>, window: Window) -> Self {
        Self { inner, window }
    }
}

impl Instance for Windowed {
    fn describe(&mut self) -> Result<Description, Fault> {
        self.inner.describe()
    }

    fn restore(&mut self, entries: &[Entry], watermark: i64) -> Result<(), Fault> {
        self.inner.restore(entries, watermark)
    }

    fn checkpoint(&mut self) -> Result<Vec<Entry>, Fault> {
        self.inner.checkpoint()
    }

    fn process(&mut self, input: &Input) -> Result<Output, Fault> {
        self.inner.process(input)
    }

    fn decode(&mut self, frames: &Frames) -> Result<Decoded, Fault> {
        let mut decoded = self.inner.decode(frames)?;
        // Columns are looked into here, before the worker has checked them.
        batch::check(&decoded.events).map_err(|breach| Fault::Breach(breach.to_string()))?;
        let mut outside: BTreeMap<(u32, i32), u64> = BTreeMap::new();
        decoded.events = batch::filter(decoded.events, |group, at| {
            let is_inside = self.window.holds(group.time[at]);
            if !is_inside {
                *outside.entry((group.symbol[at], Day::of(group.time[at]).0)).or_default() += 1;
            }
            is_inside
        });
        decoded.dropped.extend(outside.into_iter().map(|((symbol, day), count)| Dropped {
            rule: OUTSIDE_WINDOW.to_owned(),
            symbol: Some(symbol),
            day: Some(day),
            count,
        }));
        Ok(decoded)
    }

    fn write(&mut self, input: &Input) -> Result<Written, Fault> {
        self.inner.write(input)
    }

    fn set_call_time_max(&mut self, limit: Duration) {
        self.inner.set_call_time_max(limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::replay::testing::{Lines, frames};

    const SECOND: i64 = 1_000_000_000;

    fn decode(window: Window, times: &[i64]) -> Decoded {
        let trade = |seconds: &i64| {
            format!(
                r#"{{"kind":"trade","symbol":"X","source":"s","time":"1970-01-01T00:00:{seconds:02}Z","id":1,"price":1}}"#
            )
        };
        let lines: Vec<String> = times.iter().map(trade).collect();
        Windowed::new(Box::new(Lines::default()), window).decode(&frames(&lines)).unwrap()
    }

    #[test]
    fn a_window_has_its_first_time_and_not_its_last() {
        let window = Window { from: Some(2 * SECOND), to: Some(4 * SECOND) };
        let decoded = decode(window, &[1, 2, 3, 4, 5, 2]);
        assert_eq!(decoded.events.groups[0].time, [2 * SECOND, 3 * SECOND, 2 * SECOND]);
        let [dropped] = &decoded.dropped[..] else { panic!("{:?}", decoded.dropped) };
        assert_eq!((dropped.rule.as_str(), dropped.day, dropped.count), (OUTSIDE_WINDOW, Some(0), 3));
        // Every record is accounted for, so that the worker takes the answer.
        let records: u32 = decoded.records.iter().sum();
        assert_eq!(u64::from(records), batch::event_count(&decoded.events) as u64 + dropped.count);
    }

    #[test]
    fn a_window_that_is_open_holds_all_on_that_side() {
        let times = |window| batch::event_count(&decode(window, &[1, 2, 3]).events);
        assert_eq!(times(Window { from: Some(2 * SECOND), to: None }), 2);
        assert_eq!(times(Window { from: None, to: Some(2 * SECOND) }), 1);
        assert_eq!(times(Window { from: Some(9 * SECOND), to: None }), 0);
        let everything = Window::default();
        assert!(everything.is_everything() && decode(everything, &[1, 2, 3]).dropped.is_empty());
    }
}
