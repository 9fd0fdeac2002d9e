//! Calls of one stage by itself.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{Path, Request, State},
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use tapeline_invoke::{admit, body::EVENTS};

use super::{
    Api,
    problem::{Problem, What},
};
use crate::{
    metrics::Outcome,
    pipeline::{InvokeError, InvokeOptions, Invoked},
};

/// What JSON lines are called.
pub(super) const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

pub(super) async fn invoke(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let Some(stage) = api.stages.get(&name) else {
        let known = api.stages.keys().map(String::as_str);
        return Err(Problem::new(What::UnknownStage, admit::unknown_stage(&name, known)));
    };
    let [session, format] = admit::parameters(request.uri().query(), ["session", "format"])
        .map_err(|detail| Problem::new(What::BadParameter, detail))?;
    if session.is_some() {
        // It leaves something behind in this process.
        api.admin(request.headers())?;
    }
    let body = api.body_room.read(request).await?;
    admit::check_record_count(&body.bytes, format.as_deref().unwrap_or(EVENTS))
        .map_err(|detail| Problem::new(What::BadBody, detail))?;
    let started = Instant::now();
    // No receive time: the answer depends on what was sent alone.
    let options = InvokeOptions { format, session, received: None };
    let answer = stage.invoker.invoke(&body.bytes, &options).await;
    stage.metrics.observe(outcome(&answer), started.elapsed());
    answer.map(respond).map_err(problem)
}

fn respond(invoked: Invoked) -> Response {
    let counts = invoked.counts.headers();
    let mut response = ([(header::CONTENT_TYPE, NDJSON)], invoked.lines).into_response();
    let counts = counts.map(|(name, count)| (HeaderName::from_static(name), HeaderValue::from(count)));
    response.headers_mut().extend(counts);
    response
}

const fn outcome(answer: &Result<Invoked, InvokeError>) -> Outcome {
    match answer {
        Ok(_) => Outcome::Answered,
        Err(InvokeError::BadBody(_) | InvokeError::BadSession(_)) => Outcome::Refused,
        Err(InvokeError::Fault(_)) => Outcome::Failed,
        Err(InvokeError::TooMany(_) | InvokeError::Busy) => Outcome::TurnedAway,
    }
}

fn problem(error: InvokeError) -> Problem {
    let what = match &error {
        InvokeError::BadBody(_) => What::BadBody,
        InvokeError::BadSession(_) => What::BadParameter,
        InvokeError::Fault(_) => What::StageFault,
        InvokeError::TooMany(_) => What::TooManySessions,
        InvokeError::Busy => What::Busy,
    };
    Problem::new(what, error.to_string())
}
