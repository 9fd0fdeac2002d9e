//! What sets stages and pipelines to work from outside.

pub mod http;
