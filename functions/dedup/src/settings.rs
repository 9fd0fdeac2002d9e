//! Settings of the stage.

use serde::Deserialize;
use tapeline_sdk::{SettingError, Span};

/// Shorter than this, the steps of `keep / 8` in which ids are forgotten would make a saved part of every few ids.
const KEEP_MIN: Span = Span(1_000_000_000);
/// So that times, which end in the year 2262, and `keep` can be added.
const KEEP_MAX: Span = Span(100 * 366 * DAY_NS);
const DAY_NS: u64 = 86_400_000_000_000;

/// What makes two events of a symbol, source and kind the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The vendor's id.
    Id,
    /// The event time: for feeds that give one price per update.
    Time,
    /// All fields, the time and the id if there is one, but not when it was received and the lag: for feeds without ids
    /// that repeat frames. Two trades alike in all of these are one.
    Value,
}

/// Settings of the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What makes two events the same; `id` by default.
    pub policy: Policy,
    /// How far behind the watermark an event is still told from a repeated one; `24h` by default.
    pub keep: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self { policy: Policy::Id, keep: Span(DAY_NS) }
    }
}

impl Settings {
    /// `keep`, ns.
    ///
    /// # Errors
    /// When it is out of range.
    pub(crate) fn keep_ns(&self) -> Result<i64, SettingError> {
        let in_range = (KEEP_MIN..=KEEP_MAX).contains(&self.keep);
        let keep = i64::try_from(self.keep.0).ok().filter(|_| in_range);
        keep.ok_or_else(|| SettingError::new("keep", "a duration from 1s to 100 years"))
    }
}

#[cfg(test)]
mod tests {
    use tapeline_sdk::testing::Harness;

    use crate::Dedup;

    #[test]
    fn a_setting_that_cannot_be_used_is_named() {
        for (settings, key, value) in [
            (r#"{"keep": "5"}"#, "keep", "\"5\""),
            (r#"{"keep": "10ms"}"#, "keep", "\"10ms\""),
            (r#"{"keep": "500y"}"#, "keep", "\"500y\""),
            (r#"{"policy": "ids"}"#, "policy", "\"ids\""),
            (r#"{"window": 1}"#, "window", "1"),
        ] {
            let error = Harness::<Dedup>::new(settings).err().unwrap();
            assert_eq!((error.key.as_str(), error.value.as_str()), (key, value), "{error:?}");
        }
        assert!(Harness::<Dedup>::new("{}").is_ok());
    }
}
