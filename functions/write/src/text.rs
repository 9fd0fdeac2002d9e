//! Times, durations and numbers as text, without making a string for each.

use std::fmt::Write;

use tapeline_sdk::{Number, Span, Unit, format_time};

const SECOND: i64 = Unit::Seconds.ns();
/// Digits of a second's nanoseconds.
const FRACTION_DIGITS: usize = 9;
/// Durations that are remembered: more than the windows and intervals of any pipeline.
const SPANS_MAX: usize = 64;

/// RFC 3339 in UTC. Times in one second share all but their fraction.
#[derive(Default)]
pub(crate) struct Times {
    /// The second whose text is at hand, `start..end`, ns.
    start: i64,
    end: i64,
    /// The second without its `Z`, then a fraction and `Z`.
    text: String,
    second_len: usize,
}

impl Times {
    /// The same text as [`format_time`].
    #[inline]
    pub(crate) fn format(&mut self, ns: i64, unit: Unit) -> &[u8] {
        if ns < self.start || ns >= self.end {
            self.turn_to(ns);
        }
        if self.second_len == 0 {
            self.text = format_time(ns, unit);
            return self.text.as_bytes();
        }
        self.text.truncate(self.second_len);
        let digits = digits_of(unit);
        if digits > 0 {
            let mut buffer = [0; FRACTION_DIGITS];
            let mut rest = (ns - self.start) as u32;
            for digit in buffer.iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            self.text.push('.');
            self.text.push_str(buffer.get(..digits).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or(""));
        }
        self.text.push('Z');
        self.text.as_bytes()
    }

    #[cold]
    fn turn_to(&mut self, ns: i64) {
        // The first and the last second of the range of times lie in it only in part: they are not kept.
        let second = ns.div_euclid(SECOND).checked_mul(SECOND);
        let Some((start, end)) = second.and_then(|start| Some((start, start.checked_add(SECOND)?))) else {
            *self = Self::default();
            return;
        };
        (self.start, self.end) = (start, end);
        self.text = format_time(start, Unit::Seconds);
        self.second_len = self.text.trim_end_matches('Z').len();
    }
}

const fn digits_of(unit: Unit) -> usize {
    match unit {
        Unit::Seconds => 0,
        Unit::Milliseconds => 3,
        Unit::Microseconds => 6,
        Unit::Nanoseconds => FRACTION_DIGITS,
    }
}

/// Durations such as `1m`.
#[derive(Default)]
pub(crate) struct Spans(Vec<(u64, String)>);

impl Spans {
    /// The text of a duration of so many nanoseconds.
    pub(crate) fn format(&mut self, ns: u64) -> &str {
        let at = self.0.iter().position(|(known, _)| *known == ns).unwrap_or_else(|| self.add(ns));
        self.0.get(at).map_or("", |(_, text)| text)
    }

    fn add(&mut self, ns: u64) -> usize {
        if self.0.len() >= SPANS_MAX {
            self.0.clear();
        }
        self.0.push((ns, Span(ns).to_string()));
        self.0.len() - 1
    }
}

/// Numbers of one column as plain decimals of at most 15 significant digits. A price is often the one before.
#[derive(Default)]
pub(crate) struct Numbers {
    /// The bits of the number whose text is at hand.
    last: Option<u64>,
    text: String,
}

impl Numbers {
    /// The number's digits; nothing when there is none.
    #[inline]
    pub(crate) fn format(&mut self, number: f64) -> &[u8] {
        if self.last != Some(number.to_bits()) {
            self.turn_to(number);
        }
        self.text.as_bytes()
    }

    fn turn_to(&mut self, number: f64) {
        self.last = Some(number.to_bits());
        self.text.clear();
        if !number.is_nan() {
            // Writing to a string does not fail.
            let _ = write!(self.text, "{}", Number(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNITS: [Unit; 4] = [Unit::Seconds, Unit::Milliseconds, Unit::Microseconds, Unit::Nanoseconds];

    fn times() -> impl Strategy<Value = i64> {
        prop_oneof![any::<i64>(), -3 * SECOND..3 * SECOND, Just(i64::MIN), Just(i64::MAX), Just(i64::MAX - 1)]
    }

    proptest! {
        #[test]
        fn times_are_printed_as_one_by_one(cases in proptest::collection::vec((times(), 0_usize..4), 1..20)) {
            let mut formatted = Times::default();
            for (ns, unit) in cases {
                let text = format_time(ns, UNITS[unit]);
                prop_assert_eq!(formatted.format(ns, UNITS[unit]), text.as_bytes());
                prop_assert_eq!(formatted.format(ns, UNITS[unit]), text.as_bytes());
            }
        }
    }

    #[test]
    fn numbers_are_printed_one_after_the_other() {
        let mut numbers = Numbers::default();
        for (number, text) in
            [(1.5, "1.5"), (1.5, "1.5"), (f64::NAN, ""), (f64::NAN, ""), (0.0, "0"), (-0.0, "-0"), (0.0, "0")]
        {
            assert_eq!(numbers.format(number), text.as_bytes(), "{number}");
        }
    }

    #[test]
    fn spans_are_printed_however_many_there_are() {
        let mut spans = Spans::default();
        for second in (0..200).chain(0..200) {
            assert_eq!(spans.format(second * 1_000_000_000), Span(second * 1_000_000_000).to_string());
        }
    }
}
