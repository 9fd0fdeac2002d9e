//! The conformance suite in the runtimes of the host: in the process of the test, and over HTTP.

mod embedded;
mod http;

pub use self::{embedded::Embedded, http::Http};
pub use tapeline_harness::conformance::*;
