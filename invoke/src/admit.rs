//! What a request may be: its content, its parameters, its records. The texts are those of the problem documents.

use std::time::Duration;

use crate::body::{BadBody, EVENTS, records};

/// Bytes of a body: some 70,000 trades. Whoever has more sends more bodies, or a file to `tapeline run`.
pub const BODY_BYTES_MAX: usize = 8 << 20;
/// Records of a request: more than fit into a body as trades. Each takes some hundred bytes besides its own.
pub const RECORDS_MAX: usize = 100_000;
/// Bytes of a record. What is larger is no message of a vendor, and would not fit into one of a broker.
pub const RECORD_BYTES_MAX: usize = 768 << 10;
/// What the host's own formats begin with.
const RESERVED: &str = "tapeline-";
/// Letters of a format's name, as in a pipeline file.
const FORMAT_BYTES_MAX: usize = 60;
/// What bodies may hold. Programs like `curl` call whatever they send a form.
const CONTENT_TYPES: [&str; 6] = [
    "application/json",
    "application/x-ndjson",
    "application/jsonl",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "text/plain",
];

/// Whether a body can be what these headers say.
///
/// # Errors
/// Says what it cannot be.
pub fn check_content(content_type: Option<&str>, content_encoding: Option<&str>) -> Result<(), String> {
    if let Some(encoding) = content_encoding.filter(|value| *value != "identity") {
        return Err(format!("bodies are read as they are, not decoded from {encoding:?}"));
    }
    let Some(given) = content_type else { return Ok(()) };
    let essence = given.split(';').next().unwrap_or_default().trim_ascii();
    if CONTENT_TYPES.iter().any(|known| essence.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    Err(format!("{given:?} is none of {}", CONTENT_TYPES.join(", ")))
}

/// What is said of a body that is too large.
pub fn too_large() -> String {
    format!("a body may have {BODY_BYTES_MAX} bytes; send it in parts")
}

/// What is said of a method that a path does not know.
pub fn wrong_method(path: &str, method: &str) -> String {
    format!("{path} cannot be asked with {method}")
}

/// What is said of a stage that is none of those in a pipeline.
pub fn unknown_stage<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    format!("stage {name:?} is none of {}", known.join(", "))
}

/// What is said of a pipeline that is another one.
pub fn unknown_pipeline(name: &str, known: &str) -> String {
    format!("pipeline {name:?} is not {known:?}")
}

/// The parameters of a query that knows these names, in their order; each may be given once.
///
/// # Errors
/// Names a parameter that is not known, or is there twice.
pub fn parameters<const N: usize>(query: Option<&str>, names: [&str; N]) -> Result<[Option<String>; N], String> {
    let mut found = [const { None }; N];
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let Some(at) = names.iter().position(|known| *known == name) else {
            return Err(format!("parameter {name:?} is none of {}", names.join(", ")));
        };
        if found[at].replace(value.into_owned()).is_some() {
            return Err(format!("parameter {name:?} is there twice"));
        }
    }
    Ok(found)
}

/// Whether records can have this format.
///
/// # Errors
/// Says what a format is.
pub fn check_format(format: &str) -> Result<(), String> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_name = (1..=FORMAT_BYTES_MAX).contains(&format.len()) && format.bytes().all(is_allowed);
    if is_name && !format.starts_with(RESERVED) {
        return Ok(());
    }
    Err(format!("format: {format:?} instead of 1 to {FORMAT_BYTES_MAX} of a-z, 0-9 and -, not {RESERVED}..."))
}

/// The records that a body brings into a pipeline, without blank ones.
///
/// # Errors
/// When there is none, one is too large, or there are too many.
pub fn entering<'a>(body: &'a [u8], format: &str) -> Result<Vec<&'a [u8]>, String> {
    let lines = records(body, format).map_err(|error: BadBody| error.to_string())?;
    let mut out = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
        if line.len() > RECORD_BYTES_MAX {
            let length = line.len();
            return Err(format!("line {}: {length} bytes; a record may have {RECORD_BYTES_MAX}", at + 1));
        }
        if out.len() == RECORDS_MAX {
            return Err(too_many_records());
        }
        out.push(*line);
    }
    if out.is_empty() { Err("the body holds no record".to_owned()) } else { Ok(out) }
}

/// Whether a body that a stage is called with has no more records than may be.
///
/// # Errors
/// Says how many may be.
pub fn check_record_count(body: &[u8], format: &str) -> Result<(), String> {
    // Elements of an array must be events, which fill a body before they are many more than that.
    if format == EVENTS && body.trim_ascii_start().first() == Some(&b'[') {
        return Ok(());
    }
    let count =
        body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).take(RECORDS_MAX + 1).count();
    if count > RECORDS_MAX { Err(too_many_records()) } else { Ok(()) }
}

fn too_many_records() -> String {
    format!("more than {RECORDS_MAX} records; send them in parts")
}

/// Bytes of a session's name: a UUID and what somebody puts in front of it.
const SESSION_NAME_BYTES_MAX: usize = 128;

/// Whether a session can have this name.
///
/// # Errors
/// Says what a name is.
pub fn check_session(name: &str) -> Result<(), String> {
    if (1..=SESSION_NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(());
    }
    Err(format!("a session has a name of 1 to {SESSION_NAME_BYTES_MAX} bytes"))
}

/// Sessions of a stage. They are for trying a stage out and for tests; what must not be lost belongs into a pipeline.
pub const SESSIONS_MAX: usize = 64;
/// Bytes of a session's state: half a million ids, or an hour of bars of some ten thousand symbols.
pub const SESSION_BYTES_MAX: usize = 16 << 20;
/// A session that has not been called for so long may be forgotten when another one needs its place: whoever works at
/// a prompt is back within it.
pub const SESSION_IDLE_MIN: Duration = Duration::from_secs(15 * 60);

/// What is said when there is no room for another session.
pub fn too_many_sessions() -> String {
    let minutes = SESSION_IDLE_MIN.as_secs() / 60;
    format!("{SESSIONS_MAX} sessions of this stage are in use; one is forgotten after {minutes} minutes without a call")
}

/// What is said of a session whose state would become too large.
pub fn session_too_large(bytes: u64) -> String {
    format!("the session's state would have {bytes} bytes; it may have {SESSION_BYTES_MAX}")
}

/// Bytes of a key that a request is known by: a UUID and what somebody puts in front of it.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// Whether a request can have this key.
///
/// # Errors
/// Says what a key is.
pub fn check_idempotency_key(key: &str) -> Result<(), String> {
    if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) {
        return Ok(());
    }
    Err(format!("header idempotency-key: {key:?} instead of 1 to {IDEMPOTENCY_KEY_BYTES_MAX} letters"))
}

/// The format of records that do not say theirs.
pub fn format_or_events(format: Option<String>) -> Result<String, String> {
    let format = format.unwrap_or_else(|| EVENTS.to_owned());
    check_format(&format).map(|()| format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_known_and_given_once() {
        let names = ["session", "format"];
        assert_eq!(parameters(None, names), Ok([None, None]));
        let found = parameters(Some("format=events&session=a%20b"), names);
        assert_eq!(found, Ok([Some("a b".to_owned()), Some("events".to_owned())]));
        assert_eq!(parameters(Some("x=1"), names), Err("parameter \"x\" is none of session, format".to_owned()));
        assert!(parameters(Some("format=a&format=b"), names).is_err());
    }

    #[test]
    fn bodies_are_what_can_be_read() {
        assert!(check_content(None, None).is_ok());
        assert!(check_content(Some("Text/Plain; charset=utf-8"), Some("identity")).is_ok());
        assert!(check_content(Some("text/html"), None).is_err());
        assert!(check_content(None, Some("gzip")).is_err());
    }

    #[test]
    fn what_cannot_be_stored_is_refused() {
        for body in ["", "\n \n", "[]", "[{]"] {
            assert!(entering(body.as_bytes(), EVENTS).is_err(), "{body:?}");
        }
        assert!(entering(&vec![b'x'; RECORD_BYTES_MAX], EVENTS).is_ok());
        assert!(entering(&vec![b'x'; RECORD_BYTES_MAX + 1], EVENTS).is_err());
        assert!(entering("x\n".repeat(RECORDS_MAX).as_bytes(), EVENTS).is_ok());
        assert!(entering("x\n".repeat(RECORDS_MAX + 1).as_bytes(), EVENTS).is_err());
        assert!(check_record_count("x\n\n".repeat(RECORDS_MAX).as_bytes(), EVENTS).is_ok());
        assert!(check_record_count("x\n".repeat(RECORDS_MAX + 1).as_bytes(), EVENTS).is_err());
        // As `jq` writes it.
        let array = format!("[{}{{}}\n]", "{\n},".repeat(RECORDS_MAX));
        assert!(check_record_count(array.as_bytes(), EVENTS).is_ok());
    }

    #[test]
    fn formats_of_the_host_are_reserved() {
        assert!(check_format("binance").is_ok());
        for format in ["", "tapeline-watermark", "tapeline-cursor", "Events", "a b"] {
            assert!(check_format(format).is_err(), "{format:?}");
        }
    }
}
