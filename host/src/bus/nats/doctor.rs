//! Checks a broker against what the guarantees of a chain need.
//!
//! What the streams of a pipeline must be like is set whenever a chain starts; here it is found out whether somebody has
//! changed it since, and what only the server's own configuration decides.

mod server;
mod streams;

use std::time::Duration;

use serde_json::Value;

pub use self::server::{MAX_PAYLOAD_MIN, VERSION_MIN};
use super::{Broker, Hop, StreamSettings, unavailable};
use crate::error::{Error, Result};

/// How a broker stands to one of the things that are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, with a risk that somebody should have decided to take.
    Warning,
    /// A guarantee does not hold, or the chain does not run at all.
    Wrong,
    /// It could not be found out.
    Unknown,
}

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How it is.
    pub verdict: Verdict,
    /// What it is.
    pub found: String,
    /// What would be lost; empty when it is as it should be.
    pub loss: String,
    /// How to set it right; empty when it is.
    pub remedy: String,
}

impl Finding {
    fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        let (check, found) = (check.into(), found.into());
        Self { check, verdict: Verdict::Ok, found, loss: String::new(), remedy: String::new() }
    }

    fn bad(verdict: Verdict, check: impl Into<String>, found: impl Into<String>, loss: &str, remedy: &str) -> Self {
        let (check, found) = (check.into(), found.into());
        Self { check, verdict, found, loss: loss.to_owned(), remedy: remedy.to_owned() }
    }
}

/// What is to be checked.
#[derive(Clone, Debug, Default)]
pub struct Examination {
    /// The hops of a pipeline with what its file says of streams, if a pipeline is checked as well.
    pub streams: Option<(Vec<Hop>, StreamSettings)>,
    /// What the server's monitoring says at `/varz`, if it was asked.
    pub varz: Option<Value>,
}

impl Broker {
    /// Examines the broker.
    ///
    /// # Errors
    /// `Unavailable` when it does not answer.
    pub fn examine(&self, examination: &Examination) -> Result<Vec<Finding>> {
        let info = self.client().server_info();
        let replicas = examination.streams.as_ref().map(|(_, settings)| settings.replicas);
        let mut findings = server::basics(&info);
        if !info.jetstream {
            return Ok(findings);
        }
        let servers = server::server_count(&info, examination.varz.as_ref());
        findings.push(server::cluster(servers, replicas));
        findings.push(server::storage(&self.ask("INFO")?, examination));
        findings.push(server::sync(examination.varz.as_ref(), servers));
        let mut clock = examination.varz.as_ref().and_then(|varz| varz.get("now").cloned());
        for hop in examination.streams.iter().flat_map(|(hops, _)| hops) {
            let stream = self.ask(&format!("STREAM.INFO.{}", hop.stream()))?;
            clock = stream.get("ts").cloned().or(clock);
            let consumers = self.ask(&format!("CONSUMER.LIST.{}", hop.stream()))?;
            findings.extend(streams::check(hop, &stream, &consumers, replicas));
        }
        findings.push(server::clock(clock.as_ref().and_then(Value::as_str), crate::pipeline::now_ns()));
        Ok(findings)
    }

    /// Refuses a broker on which no chain can run.
    ///
    /// # Errors
    /// `Invalid`, with what is wrong and how to set it right.
    pub fn refuse_unfit(&self) -> Result<()> {
        let findings = server::basics(&self.client().server_info());
        match findings.into_iter().find(|finding| finding.verdict == Verdict::Wrong) {
            None => Ok(()),
            Some(Finding { check, found, loss, remedy, .. }) => {
                Err(Error::invalid(format!("use this NATS server: {check} is {found}: {loss}; {remedy}")))
            }
        }
    }

    /// Asks JetStream's API.
    fn ask(&self, what: &str) -> Result<Value> {
        let client = self.client();
        let asked = self.wait(async {
            let answer = client.request(format!("$JS.API.{what}"), "".into());
            let answer = tokio::time::timeout(Duration::from_secs(5), answer).await??;
            Ok::<Value, async_nats::Error>(serde_json::from_slice(&answer.payload)?)
        });
        asked.map_err(|error| unavailable(format!("ask the broker for {what}"), error))
    }
}
