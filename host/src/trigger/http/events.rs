//! Events into the pipeline.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tapeline_invoke::admit;

use super::{
    Api,
    problem::{Problem, What, chain},
};
use crate::{
    error::Kind,
    pipeline::{IngestError, now_ns},
    store::JournalRecord,
};

#[derive(Serialize)]
struct Accepted {
    accepted: usize,
    last: u64,
}

pub(super) async fn append(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    if name != api.pipeline {
        return Err(Problem::new(What::UnknownPipeline, admit::unknown_pipeline(&name, &api.pipeline)));
    }
    let parameter = |detail| Problem::new(What::BadParameter, detail);
    let [format] = admit::parameters(request.uri().query(), ["format"]).map_err(parameter)?;
    let format = admit::format_or_events(format).map_err(parameter)?;
    let body = api.body_room.read(request).await?;
    let records = journal_records(&body.bytes, &format)?;
    let accepted = records.len();
    let last = api.intake.append(records).await.map_err(|error| problem(&error))?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { accepted, last })).into_response())
}

fn journal_records(body: &[u8], format: &str) -> Result<Vec<JournalRecord>, Problem> {
    let records = admit::entering(body, format).map_err(|detail| Problem::new(What::BadBody, detail))?;
    let received = now_ns();
    let record = |record: &&[u8]| JournalRecord {
        format: format.to_owned(),
        stage: None,
        received: Some(received),
        bytes: one_line(record),
    };
    Ok(records.iter().map(record).collect())
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
}
