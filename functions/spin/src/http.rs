//! Requests in and answers out, with the limits and problem documents of our own host.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use spin_sdk::http::{FullBody, HeaderValue, Request, Response, StatusCode};
use spin_sdk::variables;
use tapeline_invoke::{
    Counts,
    admit::{self, BODY_BYTES_MAX},
    problem::{What, document},
};
use tapeline_state::StateError;

use crate::messages::MESSAGE_BYTES_MAX;

/// Our answers.
pub type Answer = Response<FullBody<Bytes>>;

/// What JSON lines are called.
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// An error that a client is told.
pub(crate) struct Problem {
    what: What,
    detail: String,
}

impl Problem {
    pub(crate) fn new(what: What, detail: impl Into<String>) -> Self {
        Self { what, detail: detail.into() }
    }

    /// The answer to whoever asked for this path.
    pub(crate) fn answer(&self, path: &str) -> Answer {
        let mut answer = Response::new(FullBody::new(document(self.what, &self.detail, path).into()));
        let status = self.what.status();
        *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = answer.headers_mut();
        for (name, value) in self.what.headers() {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if status == 405 {
            headers.insert("allow", HeaderValue::from_static(if path == HEALTH_PATH { "GET,HEAD" } else { "POST" }));
        }
        answer
    }
}

impl From<StateError> for Problem {
    fn from(error: StateError) -> Self {
        let what = match &error {
            StateError::Conflict => What::Busy,
            StateError::Store(_) => What::Unavailable,
            StateError::Corrupt(_) => What::Internal,
            StateError::Full { .. } => What::NotNow,
        };
        Self::new(what, error.to_string())
    }
}

/// Where it is asked whether the application serves.
pub(crate) const HEALTH_PATH: &str = "/healthz";

/// Refuses any other method.
pub(crate) fn check_method(request: &Request, is_allowed: impl FnOnce(&str) -> bool) -> Result<(), Problem> {
    let method = request.method().as_str();
    if is_allowed(method) {
        return Ok(());
    }
    Err(Problem::new(What::WrongMethod, admit::wrong_method(request.uri().path(), method)))
}

/// A header that is text.
pub(crate) fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers().get(name).map(|value| value.to_str().unwrap_or_default())
}

/// Reads a body, if it can be one and is not too large.
pub(crate) async fn body(request: Request) -> Result<Bytes, Problem> {
    admit::check_content(header(&request, "content-type"), header(&request, "content-encoding"))
        .map_err(|detail| Problem::new(What::WrongContent, detail))?;
    let too_large = || Problem::new(What::BodyTooLarge, admit::too_large());
    let announced = header(&request, "content-length").and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    match Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Err(error) => Err(Problem::new(What::BadBody, error.to_string())),
    }
}

/// Reads what another component of the application has sent.
pub(crate) async fn message<B>(body: B, what: &str) -> Result<Bytes, Problem>
where
    B: http_body_util::BodyExt,
    B::Error: std::fmt::Display + Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let body = Limited::new(body, MESSAGE_BYTES_MAX).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            let detail = format!("{what} would have more than {MESSAGE_BYTES_MAX} bytes; send the body in parts");
            return Problem::new(What::BodyTooLarge, detail);
        }
        Problem::new(What::Unavailable, format!("{what}: {error}"))
    })
}

/// The answer of lines, with what was counted.
pub(crate) fn lines(lines: Vec<u8>, counts: &Counts) -> Answer {
    let mut answer = Response::new(FullBody::new(lines.into()));
    let headers = answer.headers_mut();
    headers.insert("content-type", NDJSON);
    for (name, count) in counts.headers() {
        headers.insert(name, HeaderValue::from(count));
    }
    answer
}

/// A variable of this component, as the manifest gives it.
pub(crate) async fn variable(name: &str) -> Result<String, Problem> {
    let missing = |error| Problem::new(What::Internal, format!("variable {name:?} of this component: {error:?}"));
    variables::get(name).await.map_err(missing)
}
