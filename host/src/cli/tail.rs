//! `tapeline tail`: follows a subject of a running pipeline.

use std::{
    io::{BufRead, BufReader, Read, Write},
    time::Duration,
};

use clap::{Args, ValueEnum};

use super::{DataFolder, chained::Credentials, exit::Exit, output, up::address_of};
use crate::{
    bus::nats::{Broker, DeadLetterStream, Hop},
    error::{Context as _, Error, Kind, Result},
    pipeline::event_lines,
};

/// What is shown of a server's answer that is an error.
const ANSWER_BYTES_MAX: u64 = 1_000;
/// How long to wait for the next message, before waiting again.
const PATIENCE: Duration = Duration::from_secs(60);
/// The subject of a chain whose messages are no events.
const DEAD_LETTERS: &str = "dead-letters";

/// Follow what a stage of a running pipeline gives out, as JSON lines
#[derive(Args)]
#[command(after_help = "\
A subject is the name of a stage, a kind of events, or both with the pipeline's name as in btc.dedup.0. It ends when it
is interrupted or the pipeline stops. What is given out meanwhile is shown, not what was before.

With --nats a hop of a chain is followed wherever its stages run: PIPELINE.STAGE, PIPELINE.STAGE.PARTITION, or
PIPELINE.dead-letters, until it is interrupted. What a worker gives out whose commit is then refused is shown as well.

Examples:
  tapeline tail averages
  tapeline tail dedup --data ./btc | jq .price
  tapeline tail alarms --at http://127.0.0.1:7071
  tapeline tail bitcoin-trades.enrich --nats nats://broker:4222 --format text")]
pub(super) struct Tail {
    /// What to follow
    subject: String,
    /// Address of the running pipeline [default: as its data folder says]
    #[arg(long, value_name = "URL")]
    at: Option<String>,
    #[command(flatten)]
    data: DataFolder,
    /// Follow a hop of a chain on this NATS server
    #[arg(long, value_name = "URL", conflicts_with = "at")]
    nats: Option<String>,
    #[command(flatten)]
    credentials: Credentials,
    /// How to write events
    #[arg(long, default_value = "json")]
    format: TailFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TailFormat {
    /// JSON lines
    Json,
    /// Event time, subject, symbol and JSON, with tabs between them
    Text,
}

impl Tail {
    pub(super) fn run(self) -> Result<Exit> {
        check_subject(&self.subject)?;
        if let Some(url) = &self.nats {
            return self.follow_hop(&self.credentials.connect(url)?);
        }
        let address = match &self.at {
            Some(address) => address.clone(),
            None => address_of(&self.data.path)?,
        };
        let lines = BufReader::new(follow(address.trim_end_matches('/'), &self.subject)?);
        copy_lines(lines, |line, out| self.write(&self.subject, line, out), &mut output::lock())?;
        Ok(Exit::Fine)
    }

    /// Follows a hop until it is interrupted, or nobody reads what it writes.
    fn follow_hop(&self, broker: &Broker) -> Result<Exit> {
        let subject = HopSubject::parse(&self.subject)?;
        broker.check_stream(&subject.stream())?;
        let mut follower = broker.follow(&subject.filter())?;
        let mut out = output::lock();
        loop {
            if subject.is_raw() {
                let Some(passed) = follower.next_raw(PATIENCE) else { continue };
                out.write_all(&passed.payload)?;
                out.write_all(b"\n")?;
            } else {
                let Some(followed) = follower.next(PATIENCE) else { continue };
                for line in event_lines(&followed.message)? {
                    self.write(&followed.subject, format!("{line}\n").as_bytes(), &mut out)?;
                }
            }
            out.flush()?;
        }
    }

    fn write(&self, subject: &str, line: &[u8], out: &mut dyn Write) -> std::io::Result<()> {
        if self.format == TailFormat::Text {
            let event: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
            let field = |name: &str| event.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
            write!(out, "{}\t{subject}\t{}\t", field("time"), output::visible(&field("symbol")))?;
        }
        out.write_all(line)
    }
}

/// `PIPELINE.STAGE`, `PIPELINE.STAGE.PARTITION`, or `PIPELINE.dead-letters`.
struct HopSubject<'a> {
    pipeline: &'a str,
    stage: &'a str,
    partition: Option<&'a str>,
}

impl<'a> HopSubject<'a> {
    fn parse(subject: &'a str) -> Result<Self> {
        let mut words = subject.split('.').filter(|word| !word.is_empty());
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(pipeline), Some(stage), partition, None) => Ok(Self { pipeline, stage, partition }),
            _ => Err(Error::invalid(format!(
                "follow {subject:?} by NATS: a hop is PIPELINE.STAGE, PIPELINE.STAGE.PARTITION or PIPELINE.{DEAD_LETTERS}"
            ))),
        }
    }

    /// Whether what passes is text already.
    fn is_raw(&self) -> bool {
        self.stage == DEAD_LETTERS
    }

    fn stream(&self) -> String {
        match self.is_raw() {
            true => DeadLetterStream::name(self.pipeline),
            false => Hop { pipeline: self.pipeline.to_owned(), stage: self.stage.to_owned() }.stream(),
        }
    }

    fn filter(&self) -> String {
        let Self { pipeline, stage, partition } = self;
        if self.is_raw() {
            return format!("{pipeline}.{stage}");
        }
        format!("{pipeline}.{stage}.{}", partition.unwrap_or("*"))
    }
}

/// A subject becomes part of an address, where other letters would mean something else.
fn check_subject(subject: &str) -> Result<()> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !subject.is_empty() && subject.bytes().all(is_allowed) {
        return Ok(());
    }
    Err(Error::invalid(format!("follow {subject:?}: a subject is of letters, digits, - and .")))
}

fn follow(address: &str, subject: &str) -> Result<impl Read> {
    // A proxy of the environment is for the world outside, and errors of the pipeline are read from the body.
    let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).http_status_as_error(false).build().into();
    let url = format!("{address}/subjects/{subject}");
    let place = || format!("follow {url}");
    let mut answer = agent
        .get(&url)
        .call()
        .map_err(|error| Error::caused(Kind::Unavailable, format!("{}; does the pipeline run?", place()), error))?;
    if answer.status().is_success() {
        return Ok(answer.into_body().into_reader());
    }
    let status = answer.status();
    let mut text = String::new();
    answer.body_mut().as_reader().take(ANSWER_BYTES_MAX).read_to_string(&mut text).doing(place)?;
    let kind = if status.is_client_error() { Kind::Invalid } else { Kind::Unavailable };
    let detail = problem_detail(&text).unwrap_or_else(|| format!("{status}: {}", text.trim()));
    Err(Error::new(kind, format!("{}: {}", place(), output::visible(&detail))))
}

/// What a problem document says for people.
fn problem_detail(text: &str) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_str(text).ok()?;
    problem.get("detail")?.as_str().map(str::to_owned)
}

/// Copies lines until there are no more. Each is seen as soon as it is there; a cut off one never.
fn copy_lines(
    mut lines: BufReader<impl Read>,
    write: impl Fn(&[u8], &mut dyn Write) -> std::io::Result<()>,
    out: &mut dyn Write,
) -> Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        // That the host goes is how it ends, whether it takes leave or not.
        if lines.read_until(b'\n', &mut line).is_err() || !line.ends_with(b"\n") {
            return Ok(out.flush()?);
        }
        write(&line, out)?;
        if lines.buffer().is_empty() {
            out.flush()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_stay_in_their_place_of_an_address() {
        for subject in ["averages", "btc.dedup.0", "option-quote"] {
            check_subject(subject).unwrap();
        }
        for subject in ["", "a/b", "a?b", "../journal", "a b"] {
            assert_eq!(check_subject(subject).unwrap_err().kind(), Kind::Invalid, "{subject}");
        }
    }

    #[test]
    fn a_hop_is_followed_in_all_partitions_or_one() {
        let filter = |subject| HopSubject::parse(subject).map(|subject| (subject.stream(), subject.filter()));
        let owned = |stream: &str, filter: &str| (stream.to_owned(), filter.to_owned());
        assert_eq!(filter("btc.dedup").unwrap(), owned("tapeline_btc_dedup", "btc.dedup.*"));
        assert_eq!(filter("btc.dedup.3").unwrap(), owned("tapeline_btc_dedup", "btc.dedup.3"));
        assert_eq!(filter("btc.dead-letters").unwrap(), owned("tapeline_btc_dead_letters", "btc.dead-letters"));
        for wrong in ["", "averages", "a.b.c.d"] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_problem_is_told_in_its_own_words() {
        assert_eq!(problem_detail(r#"{"status":404,"detail":"no such subject"}"#).as_deref(), Some("no such subject"));
        assert_eq!(problem_detail("Bad Gateway"), None);
    }

    #[test]
    fn only_whole_lines_are_written() {
        let mut out = Vec::new();
        copy_lines(BufReader::new(&b"one\ntwo\nthr"[..]), |line, out| out.write_all(line), &mut out).unwrap();
        assert_eq!(out, b"one\ntwo\n");
    }
}
