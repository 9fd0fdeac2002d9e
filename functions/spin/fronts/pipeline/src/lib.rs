//! The front of a pipeline: exports what `spin-front` answers.

#![cfg(target_family = "wasm")]

use spin_front::{http::Answer, pipeline};
use spin_sdk::{http::Request, http_service};

#[http_service]
async fn handle(request: Request) -> Answer {
    pipeline::handle(request).await
}
