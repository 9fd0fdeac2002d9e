//! What the records of all formats have in common: checks of values, reasons of rejects, notices.

use std::{borrow::Cow, fmt};

use tapeline_sdk::{Day, Decoded, Envelope, IdRef, Name, Notice, Unit};

/// The rule for a frame without records.
pub(crate) const EMPTY: &str = "empty";
/// The rule for messages that a vendor has and the stage does not know.
pub(crate) const OTHER: &str = "other-message";
/// What a price must be.
pub(crate) const PRICE: &str = "a finite price above 0";
/// What a size must be.
pub(crate) const SIZE: &str = "a finite size of at least 0";
/// What a time must be. Later ones do not fit into 64 bits of nanoseconds.
pub(crate) const TIME: &str = "milliseconds since 1970, before the year 2262";

/// Characters of a reason: what a person reads in a list of dead letters, whatever a vendor sent.
const REASON_CHARS_MAX: usize = 280;
/// Characters of a value in a reason: enough to recognise it.
const VALUE_CHARS_MAX: usize = 40;

/// The day to count a record under: that of its receipt.
#[inline]
pub(crate) fn day(received: Option<i64>) -> Option<Day> {
    received.map(Day::of)
}

/// Whether a price can be used.
#[inline]
pub(crate) fn is_price(price: f64) -> bool {
    price.is_finite() && price > 0.0
}

/// Whether a size can be used.
#[inline]
pub(crate) fn is_size(size: f64) -> bool {
    size.is_finite() && size >= 0.0
}

/// Event time of a vendor's milliseconds.
#[inline]
pub(crate) fn time_of_ms(ms: u64) -> Option<i64> {
    i64::try_from(ms).ok()?.checked_mul(Unit::Milliseconds.ns())
}

/// The reason for a field that cannot be used.
#[cold]
pub(crate) fn wrong(field: &str, found: impl fmt::Display, expected: &str) -> String {
    format!("{field}: found {found}, expected {expected}")
}

/// The reason for a field that is not there.
#[cold]
pub(crate) fn missing(field: &str, expected: &str) -> String {
    format!("{field}: missing, expected {expected}")
}

/// The reason for what is not a message of a format.
#[cold]
pub(crate) fn malformed(expected: &str, error: impl fmt::Display) -> String {
    let error = error.to_string();
    let room = REASON_CHARS_MAX.saturating_sub(expected.len());
    format!("{}, expected {expected}", cut(&error, room))
}

/// A value as a reason shows it.
pub(crate) fn shorten(value: &str) -> Cow<'_, str> {
    cut(value, VALUE_CHARS_MAX)
}

fn cut(text: &str, chars_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars_max) {
        None => text.into(),
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()).into(),
    }
}

/// Emits what a feed says of itself. It has no time of its own: that of its receipt, or the epoch.
pub(crate) fn notice(source: Name, received: Option<i64>, text: &str, out: &mut Decoded) {
    let envelope = Envelope {
        symbol: source,
        source,
        time: received.unwrap_or(0),
        unit: Unit::Nanoseconds,
        received,
        id: IdRef::Absent,
    };
    out.emit(&envelope, Notice { text });
}
