//! What a body holds: lines, or the elements of a JSON array.

use serde_json::value::RawValue;

use crate::contract::{Frames, NOT_RECEIVED};

/// A body that is no series of events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct BadBody {
    /// Number of the line, or of the element of an array, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

/// The format of our own event lines.
pub const EVENTS: &str = "events";

/// The records of a body, as they stand in it: its lines, blank ones too, or the elements of a JSON array of events. A
/// vendor's array is one frame.
///
/// # Errors
/// When it begins like an array of events and is none.
pub fn records<'a>(body: &'a [u8], format: &str) -> Result<Vec<&'a [u8]>, BadBody> {
    let body = body.trim_ascii_end();
    if format != EVENTS || body.trim_ascii_start().first() != Some(&b'[') {
        return Ok(body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).collect());
    }
    let elements: Vec<&RawValue> = serde_json::from_slice(body)
        .map_err(|error| BadBody { line: error.line(), message: format!("not a JSON array of events: {error}") })?;
    Ok(elements.into_iter().map(|element| element.get().as_bytes()).collect())
}

/// Digits of the largest time in nanoseconds.
const STAMP_DIGITS_MAX: usize = 19;

/// Splits a line into receive time, or [`NOT_RECEIVED`], and frame. What does not begin like a time is all frame.
#[inline]
pub fn split_stamp(line: &[u8]) -> (i64, &[u8]) {
    let digits = line.iter().take(STAMP_DIGITS_MAX).take_while(|byte| byte.is_ascii_digit());
    // 19 nines are less than 2^64.
    let (number, count) =
        digits.fold((0_u64, 0), |(number, count), digit| (number * 10 + u64::from(digit - b'0'), count + 1));
    let frame = line.get(count..).and_then(|rest| rest.strip_prefix(b" ")).filter(|_| count > 0);
    match (i64::try_from(number), frame) {
        (Ok(received), Some(frame)) => (received, frame),
        _ => (NOT_RECEIVED, line),
    }
}

/// Frames from records that may each have a receive time in front: `<ns> <frame>`. Names are to be filled in.
pub fn frames(records: &[&[u8]], format: &str, received: Option<i64>) -> Frames {
    let mut frames = Frames {
        names: Vec::new(),
        format: format.to_owned(),
        received: Vec::with_capacity(records.len()),
        ends: Vec::with_capacity(records.len()),
        bytes: Vec::with_capacity(records.iter().map(|record| record.len()).sum()),
    };
    for record in records.iter().filter(|record| !record.is_empty()) {
        let (stamp, frame) = split_stamp(record);
        frames.bytes.extend_from_slice(frame);
        frames.ends.push(frames.bytes.len() as u32);
        frames.received.push(if stamp == NOT_RECEIVED { received.unwrap_or(NOT_RECEIVED) } else { stamp });
    }
    frames
}

/// The frame at `at`; empty when there is none.
pub fn frame(frames: &Frames, at: usize) -> &[u8] {
    let end = |at: usize| frames.ends.get(at).map_or(0, |end| *end as usize);
    let start = if at == 0 { 0 } else { end(at - 1) };
    frames.bytes.get(start..end(at)).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &str) -> Vec<String> {
        let records = records(body.as_bytes(), EVENTS).unwrap();
        records.iter().map(|record| String::from_utf8_lossy(record).into_owned()).collect()
    }

    #[test]
    fn a_body_is_lines_or_an_array() {
        assert_eq!(texts("{\"a\":1}\r\n\n{\"b\":\"[\"}\n"), ["{\"a\":1}", "", "{\"b\":\"[\"}"]);
        assert_eq!(texts(" [ {\"a\":[1, 2]},\n {\"b\":\"],\"} ] "), ["{\"a\":[1, 2]}", "{\"b\":\"],\"}"]);
        assert_eq!(texts("[]"), [""; 0]);
        assert_eq!(records(b"[1,2]\n[3]", "binance").unwrap(), [b"[1,2]".as_slice(), b"[3]"]);
        assert!(matches!(records(b"[{\"a\":1},\n{]", EVENTS), Err(BadBody { line: 2, .. })));
    }

    #[test]
    fn frames_may_say_when_they_were_received() {
        let records: Vec<&[u8]> =
            vec![b"1723161255342000000 {\"e\":1}", b"", b"{\"e\": 2}", b"12x {}", b"99999999999999999999 x"];
        let frames = frames(&records, "binance", Some(7));
        assert_eq!(frames.received, [1_723_161_255_342_000_000, 7, 7, 7]);
        assert_eq!(frame(&frames, 0), b"{\"e\":1}");
        assert_eq!(frame(&frames, 2), b"12x {}");
        assert_eq!(frame(&frames, 9), b"");
    }
}
