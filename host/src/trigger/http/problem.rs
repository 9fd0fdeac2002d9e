//! Errors as problem documents (RFC 9457).

use axum::{
    Json,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::error::{Error, Kind};

/// Seconds after which a client may try again what there was no room for: a pipeline works off 200,000 records in one.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// What is wrong. The text of `type` stays the same from version to version; programs may match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    UnknownRoute,
    WrongMethod,
    BodyTooLarge,
    WrongContent,
    BadParameter,
    BadBody,
    SlowBody,
    UnknownStage,
    UnknownPipeline,
    UnknownTable,
    UnknownSubject,
    StageFault,
    TooManySessions,
    Busy,
    NotReady,
    PipelineFull,
    PipelineStopped,
    AdminOff,
    Unauthorized,
    ComponentRefused,
    UnknownVersion,
    NotNow,
    Unavailable,
    Internal,
}

impl What {
    /// Last part of `type`, then `title` and `status`.
    const fn parts(self) -> (&'static str, &'static str, StatusCode) {
        match self {
            Self::UnknownRoute => ("unknown-route", "There is nothing here", StatusCode::NOT_FOUND),
            Self::WrongMethod => ("wrong-method", "Not with this method", StatusCode::METHOD_NOT_ALLOWED),
            Self::BodyTooLarge => ("body-too-large", "The body is too large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::WrongContent => ("wrong-content", "No content for this", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::BadParameter => ("bad-parameter", "A parameter is wrong", StatusCode::BAD_REQUEST),
            Self::BadBody => ("bad-body", "The body cannot be read", StatusCode::BAD_REQUEST),
            Self::SlowBody => ("slow-body", "The body did not come", StatusCode::REQUEST_TIMEOUT),
            Self::UnknownStage => ("unknown-stage", "No such stage", StatusCode::NOT_FOUND),
            Self::UnknownPipeline => ("unknown-pipeline", "No such pipeline", StatusCode::NOT_FOUND),
            Self::UnknownTable => ("unknown-table", "No such table", StatusCode::NOT_FOUND),
            Self::UnknownSubject => ("unknown-subject", "No such subject", StatusCode::NOT_FOUND),
            Self::StageFault => ("stage-fault", "The stage failed", StatusCode::UNPROCESSABLE_ENTITY),
            Self::TooManySessions => ("too-many-sessions", "No room for it", StatusCode::TOO_MANY_REQUESTS),
            Self::Busy => ("busy", "Too much is under way", StatusCode::SERVICE_UNAVAILABLE),
            Self::NotReady => ("not-ready", "Not ready yet", StatusCode::SERVICE_UNAVAILABLE),
            Self::PipelineFull => ("pipeline-full", "Too much is waiting", StatusCode::SERVICE_UNAVAILABLE),
            Self::PipelineStopped => ("pipeline-stopped", "The pipeline stops", StatusCode::SERVICE_UNAVAILABLE),
            Self::AdminOff => ("admin-off", "Administration is off", StatusCode::FORBIDDEN),
            Self::Unauthorized => ("unauthorized", "Who are you?", StatusCode::UNAUTHORIZED),
            Self::ComponentRefused => ("component-refused", "It is refused", StatusCode::UNPROCESSABLE_ENTITY),
            Self::UnknownVersion => ("unknown-version", "No such version or stage", StatusCode::NOT_FOUND),
            Self::NotNow => ("not-now", "Not as things stand", StatusCode::CONFLICT),
            Self::Unavailable => ("unavailable", "Not at present", StatusCode::SERVICE_UNAVAILABLE),
            Self::Internal => ("internal", "A fault of the server", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    #[cfg(test)]
    pub(super) const ALL: [Self; 24] = [
        Self::UnknownRoute,
        Self::WrongMethod,
        Self::BodyTooLarge,
        Self::WrongContent,
        Self::BadParameter,
        Self::BadBody,
        Self::SlowBody,
        Self::UnknownStage,
        Self::UnknownPipeline,
        Self::UnknownTable,
        Self::UnknownSubject,
        Self::StageFault,
        Self::TooManySessions,
        Self::Busy,
        Self::NotReady,
        Self::PipelineFull,
        Self::PipelineStopped,
        Self::AdminOff,
        Self::Unauthorized,
        Self::ComponentRefused,
        Self::UnknownVersion,
        Self::NotNow,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The text of `type`: a relative reference.
    pub(super) fn uri(self) -> String {
        format!("/problems/{}", self.parts().0)
    }
}

/// An error that a client is told.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    what: What,
    detail: String,
}

/// The document.
#[derive(serde::Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
}

impl Problem {
    pub(super) fn new(what: What, detail: impl Into<String>) -> Self {
        Self { what, detail: detail.into() }
    }

    /// A problem of the library; `missing` is what it is when something is not there.
    pub(super) fn of(error: &Error, missing: What) -> Self {
        let what = match error.kind() {
            Kind::NotFound => missing,
            Kind::Invalid => What::BadParameter,
            Kind::Unavailable | Kind::Conflict => What::Unavailable,
            Kind::Corrupt | Kind::Internal => What::Internal,
        };
        Self::new(what, format!("failed to {}", chain(error)))
    }

    fn document(&self, path: &str) -> Response {
        let (_, title, status) = self.what.parts();
        let (detail, r#type) = (self.detail.as_str(), self.what.uri());
        let document = Document { r#type, title, status: status.as_u16(), detail, instance: path };
        let mut response = (status, Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Problem {
    /// The document is [completed](complete) where the path is known.
    fn into_response(self) -> Response {
        let mut response = self.what.parts().2.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Makes a problem document of every error, those included that come from the router itself.
pub(super) async fn complete(request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let mut response = next.run(request).await;
    if !response.status().is_client_error() && !response.status().is_server_error() {
        return response;
    }
    let problem = response.extensions_mut().remove::<Problem>();
    let problem = problem.unwrap_or_else(|| Problem::new(foreign(response.status()), response.status().to_string()));
    let mut document = problem.document(uri.path());
    if let Some(allow) = response.headers_mut().remove(header::ALLOW) {
        document.headers_mut().insert(header::ALLOW, allow);
    }
    document
}

/// What an error is that the router itself found.
fn foreign(status: StatusCode) -> What {
    match status {
        StatusCode::NOT_FOUND => What::UnknownRoute,
        StatusCode::METHOD_NOT_ALLOWED => What::WrongMethod,
        StatusCode::PAYLOAD_TOO_LARGE => What::BodyTooLarge,
        status if status.is_client_error() => What::BadParameter,
        _ => What::Internal,
    }
}

/// An error and those behind it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
