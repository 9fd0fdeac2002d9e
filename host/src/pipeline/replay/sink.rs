//! The end of a chain that is only watched: a writer that writes nothing.

use std::time::Duration;

use crate::{
    contract::{Decoded, Description, Entry, Frames, Input, Kinds, Output, Written},
    runtime::{Fault, Instance},
    segment::{Blueprint, Role},
};

/// Takes the place of all stages behind those that are watched.
pub(super) struct Sink;

impl Blueprint for Sink {
    fn name(&self) -> &'static str {
        // No stage of a pipeline can have this name.
        "(nothing)"
    }

    fn role(&self) -> Role {
        Role::Writer
    }

    fn digest(&self) -> &'static str {
        ""
    }

    fn settings(&self) -> &'static str {
        "{}"
    }

    fn call_time_max(&self) -> Duration {
        Duration::MAX
    }

    fn instantiate(&self) -> Result<Box<dyn Instance>, Fault> {
        Ok(Box::new(Self))
    }
}

impl Instance for Sink {
    fn describe(&mut self) -> Result<Description, Fault> {
        let (name, version) = (Blueprint::name(self).to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        Ok(Description { name, version, takes: Kinds::empty(), gives: Kinds::empty(), state_version: 0 })
    }

    fn restore(&mut self, _: &[Entry], _: i64) -> Result<(), Fault> {
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<Vec<Entry>, Fault> {
        Ok(Vec::new())
    }

    fn process(&mut self, _: &Input) -> Result<Output, Fault> {
        Err(Fault::Breach("no process in a writer".to_owned()))
    }

    fn decode(&mut self, _: &Frames) -> Result<Decoded, Fault> {
        Err(Fault::Breach("no decode in a writer".to_owned()))
    }

    fn write(&mut self, _: &Input) -> Result<Written, Fault> {
        // It takes no kind of event: what comes here are marks.
        Ok(Written { fates: Vec::new(), rules: Vec::new(), rejects: Vec::new(), rows: Vec::new(), appends: Vec::new() })
    }

    fn set_call_time_max(&mut self, _: Duration) {}
}
