//! `tapeline tail`: follows a subject of a running pipeline.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
};

use clap::Args;

use super::{DataFolder, exit::Exit, output, up::ADDRESS_FILE};
use crate::error::{Context as _, Error, Kind, Result};

/// What is shown of a server's answer that is an error.
const ANSWER_BYTES_MAX: u64 = 1_000;

/// Follow what a stage of a running pipeline gives out, as JSON lines
#[derive(Args)]
#[command(after_help = "\
A subject is the name of a stage, a kind of events, or both with the pipeline's name as in btc.dedup.0. It ends when it
is interrupted or the pipeline stops. What is given out meanwhile is shown, not what was before.

Examples:
  tapeline tail averages
  tapeline tail dedup --data ./btc | jq .price
  tapeline tail alarms --at http://127.0.0.1:7071")]
pub(super) struct Tail {
    /// What to follow
    subject: String,
    /// Address of the running pipeline [default: as its data folder says]
    #[arg(long, value_name = "URL")]
    at: Option<String>,
    #[command(flatten)]
    data: DataFolder,
}

impl Tail {
    pub(super) fn run(self) -> Result<Exit> {
        check_subject(&self.subject)?;
        let address = match self.at {
            Some(address) => address,
            None => read_address(&self.data.path)?,
        };
        let lines = BufReader::new(follow(address.trim_end_matches('/'), &self.subject)?);
        copy_lines(lines, &mut output::lock())?;
        Ok(Exit::Fine)
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

fn read_address(data: &Path) -> Result<String> {
    let path = data.join(ADDRESS_FILE);
    let place = || format!("find a pipeline that runs on {}: start one with tapeline up, or use --at", data.display());
    Ok(std::fs::read_to_string(path).doing(place)?.trim().to_owned())
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
fn copy_lines(mut lines: BufReader<impl Read>, out: &mut dyn Write) -> Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        // That the host goes is how it ends, whether it takes leave or not.
        if lines.read_until(b'\n', &mut line).is_err() || !line.ends_with(b"\n") {
            return Ok(out.flush()?);
        }
        out.write_all(&line)?;
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
    fn a_problem_is_told_in_its_own_words() {
        assert_eq!(problem_detail(r#"{"status":404,"detail":"no such subject"}"#).as_deref(), Some("no such subject"));
        assert_eq!(problem_detail("Bad Gateway"), None);
    }

    #[test]
    fn only_whole_lines_are_written() {
        let mut out = Vec::new();
        copy_lines(BufReader::new(&b"one\ntwo\nthr"[..]), &mut out).unwrap();
        assert_eq!(out, b"one\ntwo\n");
    }
}
