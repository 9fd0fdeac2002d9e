//! What all tests of whole systems share: the program as a user runs it, the recordings, the conformance suite, a local AWS.
//!
//! Knows no crate of ours, so that what is tested is compiled with the features that it is used with.

pub mod conformance;
pub mod local_aws;
pub mod program;
pub mod recordings;
pub mod shared_store;
