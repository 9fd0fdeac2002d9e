//! Events into the pipeline.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::{
    Api,
    admit::Parameters,
    problem::{Problem, What, chain},
};
use crate::{
    connector::LINE_BYTES_MAX,
    error::Kind,
    pipeline::{EVENTS, IngestError, now_ns, records},
    store::JournalRecord,
};

/// Records of a request: more than fit into a body as trades. Each takes some hundred bytes besides its own.
const RECORDS_MAX: usize = 100_000;
/// What the host's own formats begin with.
const RESERVED: &str = "tapeline-";
/// Letters of a format's name, as in a pipeline file.
const FORMAT_BYTES_MAX: usize = 60;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sending {
    format: Option<String>,
}

#[derive(Serialize)]
struct Accepted {
    accepted: usize,
    last: u64,
}

pub(super) async fn append(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Parameters(Sending { format }): Parameters<Sending>,
    request: Request,
) -> Result<Response, Problem> {
    if name != api.pipeline {
        return Err(Problem::new(What::UnknownPipeline, format!("pipeline {name:?} is not {:?}", api.pipeline)));
    }
    let format = format.unwrap_or_else(|| EVENTS.to_owned());
    check_format(&format)?;
    let body = api.body_room.read(request).await?;
    let records = journal_records(&body.bytes, &format)?;
    let accepted = records.len();
    let last = api.intake.append(records).await.map_err(|error| problem(&error))?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { accepted, last })).into_response())
}

fn check_format(format: &str) -> Result<(), Problem> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_name = (1..=FORMAT_BYTES_MAX).contains(&format.len()) && format.bytes().all(is_allowed);
    if is_name && !format.starts_with(RESERVED) {
        return Ok(());
    }
    let detail = format!("format: {format:?} instead of 1 to {FORMAT_BYTES_MAX} of a-z, 0-9 and -, not {RESERVED}...");
    Err(Problem::new(What::BadParameter, detail))
}

fn journal_records(body: &[u8], format: &str) -> Result<Vec<JournalRecord>, Problem> {
    let bad = |detail: String| Problem::new(What::BadBody, detail);
    let lines = records(body, format).map_err(|error| bad(error.to_string()))?;
    let received = now_ns();
    let mut out = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
        if line.len() > LINE_BYTES_MAX {
            let length = line.len();
            return Err(bad(format!("line {}: {length} bytes; a record may have {LINE_BYTES_MAX}", at + 1)));
        }
        if out.len() == RECORDS_MAX {
            return Err(bad(format!("more than {RECORDS_MAX} records; send them in parts")));
        }
        let bytes = one_line(line);
        out.push(JournalRecord { format: format.to_owned(), stage: None, received: Some(received), bytes });
    }
    if out.is_empty() { Err(bad("the body holds no record".to_owned())) } else { Ok(out) }
}

/// An element of an array may stand on several lines; a record stands on one. JSON has line ends only between tokens.
fn one_line(record: &[u8]) -> Vec<u8> {
    record.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

fn problem(error: &IngestError) -> Problem {
    let what = match error {
        IngestError::Full { .. } => What::PipelineFull,
        IngestError::Stopped => What::PipelineStopped,
        IngestError::Elsewhere => What::UnknownRoute,
        IngestError::Store(error) if error.kind() == Kind::Unavailable => What::Unavailable,
        IngestError::Store(_) => What::Internal,
    };
    Problem::new(what, chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &str, format: &str) -> Vec<String> {
        let records = journal_records(body.as_bytes(), format).unwrap();
        records.into_iter().map(|record| String::from_utf8(record.bytes).unwrap()).collect()
    }

    #[test]
    fn a_record_is_a_line() {
        assert_eq!(texts("{\"a\":1}\r\n\n{\"b\":2}\n", "events"), ["{\"a\":1}", "{\"b\":2}"]);
        assert_eq!(texts("[{\"a\":\n1},{\"b\":2}]", "events"), ["{\"a\": 1}", "{\"b\":2}"]);
        assert_eq!(texts("[1,2]\n[3]", "binance"), ["[1,2]", "[3]"]);
    }

    #[test]
    fn what_cannot_be_stored_is_refused() {
        for body in ["", "\n \n", "[]", "[{]"] {
            assert!(journal_records(body.as_bytes(), "events").is_err(), "{body:?}");
        }
        assert!(journal_records(&vec![b'x'; LINE_BYTES_MAX], "events").is_ok());
        assert!(journal_records(&vec![b'x'; LINE_BYTES_MAX + 1], "events").is_err());
        assert!(journal_records("x\n".repeat(RECORDS_MAX).as_bytes(), "events").is_ok());
        assert!(journal_records("x\n".repeat(RECORDS_MAX + 1).as_bytes(), "events").is_err());
    }

    #[test]
    fn formats_of_the_host_are_reserved() {
        assert!(check_format("binance").is_ok());
        for format in ["", "tapeline-watermark", "tapeline-cursor", "Events", "a b"] {
            assert!(check_format(format).is_err(), "{format:?}");
        }
    }
}
