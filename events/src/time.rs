//! Times, durations and days as text.

use std::{fmt, time::Duration};

use jiff::{Timestamp, civil::Date};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// How precise a time came in: the number of digits that it prints with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// No digit after the second.
    Seconds,
    /// Three digits.
    Milliseconds,
    /// Six digits.
    Microseconds,
    /// Nine digits.
    Nanoseconds,
}

impl Unit {
    /// Length of the unit in nanoseconds.
    pub const fn ns(self) -> i64 {
        match self {
            Self::Seconds => 1_000_000_000,
            Self::Milliseconds => 1_000_000,
            Self::Microseconds => 1_000,
            Self::Nanoseconds => 1,
        }
    }
}

/// A text that is no time as RFC 3339 writes it.
#[derive(Debug, thiserror::Error)]
#[error("not a time in RFC 3339 such as 2024-08-08T23:54:15.342Z: {0:?}")]
pub struct TimeError(String);

/// Writes nanoseconds since the epoch as RFC 3339 in UTC with the digits of `unit`.
///
/// A time outside of the years -9999 to 9999 prints as its nanoseconds.
pub fn format_time(ns: i64, unit: Unit) -> String {
    let Ok(time) = Timestamp::from_nanosecond(i128::from(ns)) else { return ns.to_string() };
    match unit {
        Unit::Seconds => format!("{time:.0}"),
        Unit::Milliseconds => format!("{time:.3}"),
        Unit::Microseconds => format!("{time:.6}"),
        Unit::Nanoseconds => format!("{time:.9}"),
    }
}

/// Reads a time in RFC 3339: nanoseconds since the epoch, and how many digits it came with.
///
/// # Errors
/// When the text is no such time or lies outside of 1677 to 2262, the range of nanoseconds in 64 bits.
pub fn parse_time(text: &str) -> Result<(i64, Unit), TimeError> {
    let error = || TimeError(text.chars().take(80).collect());
    let time: Timestamp = text.parse().map_err(|_| error())?;
    let ns = i64::try_from(time.as_nanosecond()).map_err(|_| error())?;
    let digits = text.split_once('.').map_or(0, |(_, rest)| rest.bytes().take_while(u8::is_ascii_digit).count());
    let unit = match digits {
        0 => Unit::Seconds,
        1..=3 => Unit::Milliseconds,
        4..=6 => Unit::Microseconds,
        _ => Unit::Nanoseconds,
    };
    Ok((ns, unit))
}

/// A length of time in nanoseconds that reads and prints as `5m`, `1h 30m`, `250ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span(pub u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(Duration::from_nanos(self.0)))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let expected =
            || D::Error::custom(format!("{text:?} is not a duration such as \"5m\", \"250ms\" or \"1h 30m\""));
        let duration = humantime::parse_duration(&text).map_err(|_| expected())?;
        u64::try_from(duration.as_nanos()).map(Self).map_err(|_| expected())
    }
}

/// A day in UTC, as days since 1970-01-01, that reads and prints as `2024-08-08`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Day(pub i32);

const EPOCH: Date = Date::constant(1970, 1, 1);

impl Day {
    /// The day in which a time lies.
    pub const fn of(ns: i64) -> Self {
        // An i64 of nanoseconds spans 106,752 days either way.
        Self(ns.div_euclid(86_400_000_000_000) as i32)
    }

    /// Whether a time can lie in it.
    pub const fn has_times(self) -> bool {
        Self::of(i64::MIN).0 <= self.0 && self.0 <= Self::of(i64::MAX).0
    }

    /// Reads `2024-08-08`.
    pub fn parse(text: &str) -> Option<Self> {
        let date: Date = text.parse().ok()?;
        Some(Self(date.since((jiff::Unit::Day, EPOCH)).ok()?.get_days()))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A vendor's last trading day may be any number; those of no calendar print as they are.
        match jiff::Span::new().try_days(self.0).and_then(|days| EPOCH.checked_add(days)) {
            Ok(date) => write!(f, "{date}"),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is not a day such as 2014-06-20")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_the_digits_they_came_with() {
        for text in [
            "2024-08-08T23:54:15Z",
            "2024-08-08T23:54:15.342Z",
            "2024-08-08T23:54:15.000Z",
            "2024-08-08T23:54:15.342001Z",
            "1969-12-31T23:59:59.999999999Z",
        ] {
            let (ns, unit) = parse_time(text).unwrap();
            assert_eq!(format_time(ns, unit), text);
        }
        assert!(parse_time("yesterday").is_err());
        assert!(parse_time("9999-01-01T00:00:00Z").is_err());
    }

    #[test]
    fn days_and_spans_are_read_back() {
        for (day, text) in [(0, "1970-01-01"), (-1, "1969-12-31"), (19_943, "2024-08-08")] {
            assert_eq!(Day(day).to_string(), text);
            assert_eq!(Day::parse(text), Some(Day(day)));
        }
        assert_eq!(Day::of(-1), Day(-1));
        for day in [i32::MIN, -7_304_485, 7_304_485, i32::MAX] {
            assert_eq!(Day(day).to_string(), day.to_string());
            assert!(!Day(day).has_times());
        }
        let (first, last) = (Day::of(i64::MIN), Day::of(i64::MAX));
        assert!(first.has_times() && last.has_times() && Day(0).has_times());
        assert!(!Day(first.0 - 1).has_times() && !Day(last.0 + 1).has_times());
        for text in ["5m", "250ms", "1h 30m", "1s"] {
            let span: Span = serde_json::from_str(&format!("{text:?}")).unwrap();
            assert_eq!(span.to_string(), text);
        }
        assert!(serde_json::from_str::<Span>("\"soon\"").is_err());
    }
}
