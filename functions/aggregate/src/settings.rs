//! Settings of the stage: as they are written, and as they are worked with.

use serde::Deserialize;
use tapeline_sdk::{SettingError, Span};

/// Bars, and windows, that can be asked for: each costs every trade some nanoseconds, and some bytes of every commit.
const LENGTHS_MAX: usize = 32;
/// Longest duration: a hundred years of 365 days. Three of them still add up within 64 bits of nanoseconds.
const SPAN_MAX: Span = Span(100 * 365 * 86_400_000_000_000);
/// A chart that moves once a second is smooth enough, and does not multiply the trades.
const PROVISIONAL: Span = Span(1_000_000_000);

/// Settings as they are written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Lengths of tumbling bars.
    #[serde(default)]
    pub bars: Vec<Span>,
    /// Lengths of sliding averages.
    #[serde(default)]
    pub windows: Vec<Span>,
    /// How far behind the watermark a trade may come.
    #[serde(default = "no_time")]
    pub lateness: Span,
    /// Event time between two provisional bars; nothing for none.
    #[serde(default = "provisional")]
    pub provisional: Span,
}

const fn no_time() -> Span {
    Span(0)
}

const fn provisional() -> Span {
    PROVISIONAL
}

/// Settings that can be worked with: lengths are in 1 ..= a hundred years, and differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) bars: Vec<i64>,
    pub(crate) windows: Vec<i64>,
    pub(crate) lateness: i64,
    /// Absent when no provisional bars are wanted.
    pub(crate) provisional: Option<i64>,
}

impl Plan {
    /// Length of the longest window, 0 without windows.
    pub(crate) fn window_max(&self) -> i64 {
        self.windows.iter().copied().max().unwrap_or(0)
    }

    /// How long after a trade's time, by the watermark, something of it can still show.
    ///
    /// A trade that is not late has come within `lateness`, so once the watermark is past `time + keep`, it lies
    /// * behind the end of every bar that the old one is in: what would be late against that bar is late anyway;
    /// * so far ahead that where its windows begin, the windows that still hold the old one have ended altogether:
    ///   they begin anew then, and nobody asks for the old price to take it out of a sum. This takes the window twice.
    pub(crate) fn keep(&self) -> i64 {
        let bar_max = self.bars.iter().copied().max().unwrap_or(0);
        self.window_max().saturating_mul(2).max(bar_max).saturating_add(self.lateness)
    }
}

impl TryFrom<Settings> for Plan {
    type Error = SettingError;

    fn try_from(settings: Settings) -> Result<Self, SettingError> {
        let provisional = span("provisional", settings.provisional)?;
        Ok(Self {
            bars: lengths("bars", &settings.bars)?,
            windows: lengths("windows", &settings.windows)?,
            lateness: span("lateness", settings.lateness)?,
            provisional: Some(provisional).filter(|step| *step > 0),
        })
    }
}

fn span(key: &str, span: Span) -> Result<i64, SettingError> {
    let error = || SettingError::new(key, format!("a duration of at most {SPAN_MAX}"));
    if span > SPAN_MAX { Err(error()) } else { i64::try_from(span.0).map_err(|_| error()) }
}

fn lengths(key: &str, spans: &[Span]) -> Result<Vec<i64>, SettingError> {
    if spans.len() > LENGTHS_MAX {
        return Err(SettingError::new(key, format!("at most {LENGTHS_MAX} durations")));
    }
    let length = |(at, length): (usize, &Span)| {
        let key = format!("{key}[{at}]");
        if length.0 == 0 {
            return Err(SettingError::new(key, "a duration above 0"));
        }
        if spans.iter().take(at).any(|earlier| earlier == length) {
            return Err(SettingError::new(key, "a duration that is not there yet"));
        }
        span(&key, *length)
    };
    spans.iter().enumerate().map(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, SettingError> {
        Plan::try_from(serde_json::from_str::<Settings>(text).unwrap())
    }

    #[test]
    fn nothing_need_be_said() {
        let plan = plan("{}").unwrap();
        assert_eq!((plan.lateness, plan.provisional, plan.keep()), (0, Some(1_000_000_000), 0));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, key) in [
            (r#"{"bars": ["1m", "0s"]}"#, "bars[1]"),
            (r#"{"windows": ["1m", "5m", "60s"]}"#, "windows[2]"),
            (r#"{"windows": ["200years"]}"#, "windows[0]"),
            (r#"{"lateness": "500years"}"#, "lateness"),
            (r#"{"provisional": "500years"}"#, "provisional"),
        ] {
            assert_eq!(plan(text).unwrap_err().key, key);
        }
        let many: Vec<String> = (1..=33).map(|at| format!("\"{at}s\"")).collect();
        assert_eq!(plan(&format!(r#"{{"bars": [{}]}}"#, many.join(","))).unwrap_err().key, "bars");
    }

    #[test]
    fn no_provisional_bars_when_the_step_is_nothing() {
        assert_eq!(plan(r#"{"provisional": "0s"}"#).unwrap().provisional, None);
    }
}
