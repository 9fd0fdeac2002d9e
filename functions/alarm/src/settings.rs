//! Settings of the stage: as they are written, and as they are worked with.

use serde::Deserialize;
use tapeline_sdk::{SettingError, Span};

/// Windows that can be named: as many as the aggregate stage makes.
const WINDOWS_MAX: usize = 32;
/// Longest duration: a hundred years of 365 days, so that a time and a few durations add up in 64 bits of nanoseconds.
const SPAN_MAX: Span = Span(100 * 365 * 86_400_000_000_000);
/// What has not been traded for a day has no previous average worth comparing with.
const KEEP: Span = Span(86_400_000_000_000);

/// Settings as they are written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Tolerance in units of price. Either this or `relative`.
    pub absolute: Option<f64>,
    /// Tolerance as a fraction of the previous average. Either this or `absolute`.
    pub relative: Option<f64>,
    /// Event time after an alarm in which the same window of the symbol raises no other.
    #[serde(default = "no_time")]
    pub cooldown: Span,
    /// Windows to watch; all when it is empty.
    #[serde(default)]
    pub windows: Vec<Span>,
    /// Event time without an average after which a symbol is forgotten.
    #[serde(default = "keep")]
    pub keep: Span,
}

const fn no_time() -> Span {
    Span(0)
}

const fn keep() -> Span {
    KEEP
}

/// How far an average may move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Tolerance {
    Absolute(f64),
    Relative(f64),
}

/// Settings that can be worked with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) tolerance: Tolerance,
    pub(crate) cooldown: i64,
    pub(crate) windows: Vec<u64>,
    pub(crate) keep: i64,
}

impl TryFrom<Settings> for Plan {
    type Error = SettingError;

    fn try_from(settings: Settings) -> Result<Self, SettingError> {
        let tolerance = match (settings.absolute, settings.relative) {
            (Some(absolute), None) => Tolerance::Absolute(number("absolute", absolute)?),
            (None, Some(relative)) => Tolerance::Relative(number("relative", relative)?),
            (None, None) => return Err(SettingError::new("absolute", "a tolerance: either absolute or relative")),
            (Some(_), Some(_)) => return Err(SettingError::new("relative", "nothing, as absolute is given")),
        };
        if settings.windows.len() > WINDOWS_MAX {
            return Err(SettingError::new("windows", format!("at most {WINDOWS_MAX} durations")));
        }
        if let Some(at) = settings.windows.iter().position(|window| window.0 == 0) {
            return Err(SettingError::new(format!("windows[{at}]"), "a duration above 0"));
        }
        if settings.keep.0 == 0 {
            return Err(SettingError::new("keep", "a duration above 0"));
        }
        Ok(Self {
            tolerance,
            cooldown: span("cooldown", settings.cooldown)?,
            windows: settings.windows.iter().map(|window| window.0).collect(),
            keep: span("keep", settings.keep)?,
        })
    }
}

fn number(key: &str, value: f64) -> Result<f64, SettingError> {
    let is_usable = value.is_finite() && value >= 0.0;
    if is_usable { Ok(value) } else { Err(SettingError::new(key, "a finite number >= 0")) }
}

fn span(key: &str, span: Span) -> Result<i64, SettingError> {
    let error = || SettingError::new(key, format!("a duration of at most {SPAN_MAX}"));
    if span > SPAN_MAX { Err(error()) } else { i64::try_from(span.0).map_err(|_| error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, SettingError> {
        Plan::try_from(serde_json::from_str::<Settings>(text).unwrap())
    }

    #[test]
    fn a_tolerance_is_enough() {
        let plan = plan(r#"{"relative": 0.01}"#).unwrap();
        assert_eq!(plan.tolerance, Tolerance::Relative(0.01));
        assert_eq!((plan.cooldown, plan.keep, plan.windows.len()), (0, 86_400_000_000_000, 0));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, key) in [
            ("{}", "absolute"),
            (r#"{"absolute": 1, "relative": 1}"#, "relative"),
            (r#"{"absolute": -0.5}"#, "absolute"),
            (r#"{"relative": -1}"#, "relative"),
            (r#"{"absolute": 1, "windows": ["1m", "0s"]}"#, "windows[1]"),
            (r#"{"absolute": 1, "cooldown": "500years"}"#, "cooldown"),
            (r#"{"absolute": 1, "keep": "500years"}"#, "keep"),
            (r#"{"absolute": 1, "keep": "0s"}"#, "keep"),
        ] {
            assert_eq!(plan(text).unwrap_err().key, key);
        }
    }
}
