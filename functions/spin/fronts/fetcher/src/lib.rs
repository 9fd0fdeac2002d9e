//! The front of a fetcher: exports what `spin-front` answers.

#![cfg(target_family = "wasm")]

use spin_front::{http::Answer, stage};
use spin_sdk::{http::Request, http_service};

#[http_service]
async fn handle(request: Request) -> Answer {
    stage::handle(request).await
}
