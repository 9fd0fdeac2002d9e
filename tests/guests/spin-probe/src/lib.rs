//! Answers over HTTP with what Spin gives a component: variables, keys and values, other components, a stage as a
//! dependency. The tests of the stand-in for Spin ask it.
//!
//! It is nothing outside of a component: what it calls has names that no other linker takes.

#![cfg(target_family = "wasm")]

mod keys;
mod stage;

use std::sync::atomic::{AtomicU32, Ordering};

use spin_sdk::http::body::IncomingBodyExt;
use spin_sdk::http::{FullBody, Request, Response, StatusCode};
use spin_sdk::{http_service, variables};

use spin_sdk::http::bytes_of as _;
