//! The description of the interface, as OpenAPI.

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};

/// The document. Written by hand: what is worth reading in it, no macro knows.
pub(super) const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], DOCUMENT).into_response()
}
