//! How the pipeline is: for probes, for Prometheus, for people.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, header},
    response::{Html, IntoResponse, Response},
};
use serde::Serialize;
use tapeline_events::{Unit, format_time};

use super::{
    Api,
    problem::{Problem, What},
};

const OPENMETRICS: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
/// The page loads nothing from elsewhere, and nobody may put it into a frame.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'",
);

#[derive(Serialize)]
struct Status<'a> {
    pipeline: &'a str,
    ready: bool,
    /// Journal records not processed yet.
    waiting: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    watermark: Option<String>,
}

pub(super) async fn page() -> Response {
    let headers = [(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)];
    (headers, Html(include_str!("status.html"))).into_response()
}

/// Says that the process serves.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// Says whether the pipeline is running and has caught up.
pub(super) async fn readiness(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let readiness = (api.readiness)();
    if let Some(reason) = readiness.not_ready {
        return Err(Problem::new(What::NotReady, reason));
    }
    let watermark = api.metrics.watermark().map(|watermark| format_time(watermark, Unit::Milliseconds));
    let status = Status { pipeline: &api.pipeline, ready: true, waiting: readiness.waiting, watermark };
    Ok(Json(status).into_response())
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    ([(header::CONTENT_TYPE, OPENMETRICS)], api.metrics.encode((api.readiness)().waiting)).into_response()
}
