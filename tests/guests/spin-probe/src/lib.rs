//! Answers over HTTP with what Spin gives a component: variables, keys and values, other components, a stage as a
//! dependency. The tests of the stand-in for Spin ask it.
//!
//! It is nothing outside of a component: what it calls has names that no other linker takes.

#![cfg(target_family = "wasm")]

mod answer;
mod keys;
mod stage;

use spin_sdk::http::{IntoResponse, Request};
use spin_sdk::http_service;

#[http_service]
async fn serve(request: Request) -> impl IntoResponse {
    answer::to(request).await
}
