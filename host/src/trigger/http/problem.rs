//! Errors as problem documents (RFC 9457).

use axum::{
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use tapeline_invoke::problem;
pub(super) use tapeline_invoke::problem::What;

use crate::error::{Error, Kind};

/// An error that a client is told.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    what: What,
    detail: String,
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
        let status = status(self.what);
        let mut response = (status, problem::document(self.what, &self.detail, path)).into_response();
        for (name, value) in self.what.headers() {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl IntoResponse for Problem {
    /// The document is [completed](complete) where the path is known.
    fn into_response(self) -> Response {
        let mut response = status(self.what).into_response();
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

fn status(what: What) -> StatusCode {
    StatusCode::from_u16(what.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
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
