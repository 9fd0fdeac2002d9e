//! `tapeline doctor`: checks a NATS server against what a chain needs.

use std::{io::Write as _, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{
    chained::Server,
    exit::Exit,
    output::{self, visible},
};
use crate::{
    bus::nats::{Examination, Finding, Verdict},
    error::{Context as _, Error, Kind, Result},
    pipeline::{hops, spec::Pipeline, stream_settings},
};

/// Check a NATS server against what the guarantees of a chain need
#[derive(Args)]
#[command(after_help = "\
Says of each thing what it is, what would be lost, and how to set it. With a pipeline file its streams are checked too;
with the server's monitoring, what only that tells. The exit code is 1 when something is wrong.

Examples:
  tapeline doctor --nats nats://broker:4222
  tapeline doctor pipelines/bitcoin-trades.toml --nats nats://broker:4222 --monitor http://broker:8222")]
pub(super) struct Doctor {
    /// The pipeline file
    pipeline: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
    /// The server's monitoring, such as http://127.0.0.1:8222
    #[arg(long, value_name = "URL")]
    monitor: Option<String>,
    /// How to write what was found
    #[arg(long, default_value = "text")]
    format: DoctorFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DoctorFormat {
    /// For people
    Text,
    /// An array of objects
    Json,
}

impl Doctor {
    pub(super) fn run(self) -> Result<Exit> {
        let pipeline = self.pipeline.as_deref().map(Pipeline::load).transpose()?;
        let streams = pipeline.as_ref().map(|pipeline| (hops(pipeline), stream_settings(pipeline)));
        let varz = self.monitor.as_deref().map(monitoring).transpose()?;
        let findings = self.server.connect()?.examine(&Examination { streams, varz })?;
        let mut out = output::lock();
        match self.format {
            DoctorFormat::Text => findings.iter().try_for_each(|finding| out.write_all(text(finding).as_bytes()))?,
            DoctorFormat::Json => {
                let text = serde_json::to_string_pretty(&findings)
                    .map_err(|error| Error::caused(Kind::Internal, "write findings as JSON", error))?;
                writeln!(out, "{text}")?;
            }
        }
        out.flush()?;
        let is_wrong = findings.iter().any(|finding| finding.verdict == Verdict::Wrong);
        Ok(if is_wrong { Exit::Failed } else { Exit::Fine })
    }
}

fn monitoring(address: &str) -> Result<serde_json::Value> {
    let url = format!("{}/varz", address.trim_end_matches('/'));
    let place = || format!("read {url}");
    let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
    let answer = agent.get(&url).call();
    let mut answer = answer.map_err(|error| Error::caused(Kind::Unavailable, place(), error))?;
    let text = answer.body_mut().read_to_vec().map_err(|error| Error::caused(Kind::Unavailable, place(), error))?;
    let parsed: std::io::Result<_> = serde_json::from_slice(&text).map_err(Into::into);
    parsed.doing(place)
}

fn text(finding: &Finding) -> String {
    let verdict = match finding.verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Wrong => "WRONG",
        Verdict::Unknown => "unknown",
    };
    let mut text = format!("{verdict:<8} {}: {}\n", finding.check, visible(&finding.found));
    for (name, value) in [("lost", &finding.loss), ("set", &finding.remedy)] {
        if !value.is_empty() {
            text.push_str(&format!("{:9}{name}: {value}\n", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_is_lost_and_what_to_do() {
        let finding = Finding {
            check: "clock".to_owned(),
            verdict: Verdict::Wrong,
            found: "20 s".to_owned(),
            loss: "events".to_owned(),
            remedy: "use NTP".to_owned(),
        };
        assert_eq!(text(&finding), "WRONG    clock: 20 s\n         lost: events\n         set: use NTP\n");
    }
}
