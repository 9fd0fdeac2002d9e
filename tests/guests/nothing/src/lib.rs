//! Answers every HTTP request with 200 and nothing in it: what `wasmtime serve` costs by itself, for the benchmark of
//! invoking a stage. There is nothing of it outside of a component: its exports have names that no other linker takes.

#![cfg(target_family = "wasm")]

use wasip2::http::types::{Fields, IncomingRequest, OutgoingResponse, ResponseOutparam};

struct Nothing;

impl wasip2::exports::http::incoming_handler::Guest for Nothing {
    fn handle(_: IncomingRequest, answer: ResponseOutparam) {
        ResponseOutparam::set(answer, Ok(OutgoingResponse::new(Fields::new())));
    }
}

#[allow(unsafe_code, reason = "generated: the exported functions of a component have fixed names")]
mod exported {
    use super::Nothing;

    wasip2::http::proxy::export!(Nothing);
}
