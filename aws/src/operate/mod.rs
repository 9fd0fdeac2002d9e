//! What people do with a pipeline on AWS from their own machine: bring in another version of a stage, look, go back, send
//! again what failed, and read what was written and counted. The program `tapeline-aws` is this behind a command line; nothing of it runs in a function.
//!
//! A pipeline is found by the name of its stack alone: the outputs say where everything is, the template what each stage was
//! told.

mod account;
mod error;
mod fit;
mod ledger;
mod list;
mod outputs;
mod pointer;
mod push;
mod redrive;
mod rollback;
mod rows;
mod shared_stores;
mod stack;
mod stores;

pub use account::Account;
pub use error::OperateError;
pub use ledger::ledger;
pub use list::{Listed, Refused, list};
pub use pointer::{Change, Pointed, Pointer};
pub use push::{CompiledFile, Pushed, push};
pub use redrive::{Redriven, Waiting, redrive, waiting};
pub use rollback::{To, rollback};
pub use rows::{Query, Row, rows};
pub use shared_stores::SharedStores;
pub use stack::{Segment, Stack};
pub use stores::Stores;
