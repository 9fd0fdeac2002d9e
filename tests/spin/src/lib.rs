//! A stand-in for `spin up`, for tests on a machine where no `spin` program can be had.
//!
//! It takes the manifest that Spin takes, composes each component with its dependencies by the crate that Spin composes
//! with, and serves the application over HTTP on a port of its own. Each request runs the component in wasmtime.
//!
//! # What of Spin it does
//! * Manifest version 2: triggers `http` (exact routes, `/...`, private ones), variables with defaults and templates,
//!   key-value labels, allowed outbound hosts, dependencies that are files. Everything else in a manifest is refused,
//!   so that nothing is passed over in silence.
//! * Components that export `wasi:http/handler@0.3.0`, as `spin-sdk` 7 makes them. Instances are kept and shared between
//!   requests as [`Reuse`] says, by the same `ProxyHandler` of wasmtime that Spin uses.
//! * WASI 0.2 and 0.3 without files, sockets and environment; `spin:variables` 3, `spin:key-value` 3 and
//!   `wasi:keyvalue` 0.2.0-draft2 on a store in memory, with the semantics of Spin's SQLite store; outbound HTTP to the
//!   hosts that the manifest allows, and to other components by `http://NAME.spin.internal/`.
//!
//! # What it does not
//! * TLS, other triggers, files, environment, the other stores of Spin, `http://self`, routes with `:name` segments,
//!   `dependencies_inherit_configuration`.
//! * Spin gives a dependency that may not use the host a set of interfaces that deny everything. Here such a dependency
//!   is refused when it imports anything of the kind.
//! * Spin's limits and its settings of the runtime. A component that loops never ends.
//!
//! A real `spin up` is the judge. This is for what can be tested without it.

mod app;
mod compose;
mod host;
mod key_value;
mod manifest;
mod server;

pub use app::{Reuse, SpinApp};
pub use key_value::{DEFAULT_LABEL, Failure, KeyValue};
pub use manifest::{Manifest, Route};
pub use server::SpinServer;
