//! The program as somebody at a terminal meets it: help, exit codes, errors, formats, pipes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
    thread,
    time::Duration,
};

use tapeline_tests::program;
use tempfile::TempDir;

const PIPELINE: &str = r#"
name = "small"

[source]
format = "binance"

[[stages]]
name = "fetch"

[[stages]]
name = "dedup"

[[stages]]
name = "write"
"#;

/// Trades of the recording: with the simulator's usual seed some of them are sent twice.
const TRADES: usize = 20_000;
const EXIT_WRONG: i32 = 2;
const EXIT_DEAD_LETTERS: i32 = 3;

/// A folder with a pipeline file, and what is made in it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(TempDir::new().unwrap());
        place.write("small.toml", PIPELINE);
        place
    }

    /// A place where a recording has been run.
    fn with_trades() -> Self {
        let place = Self::new();
        place.record("trades.ndjson");
        let run = place.run(&["run", "small.toml", "--input", "trades.ndjson"]);
        assert_eq!(code(&run), 0, "{}", errors(&run));
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    fn record(&self, name: &str) {
        let recording = self.run(&["simulate", "--trades", &TRADES.to_string()]);
        assert_eq!(code(&recording), 0, "{}", errors(&recording));
        fs::write(self.path().join(name), recording.stdout).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program::path());
        command.args(arguments).current_dir(self.path()).env("TAPELINE_COMPONENTS", program::components());
        command.env_remove("TAPELINE_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn run_with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

#[test]
fn every_command_helps_with_examples() {
    let place = Place::new();
    let help = place.run(&["--help"]);
    assert_eq!(code(&help), 0);
    assert!(text(&help).contains("Exit codes:"), "{}", text(&help));
    let commands: [&[&str]; 14] = [
        &["up"],
        &["run"],
        &["invoke"],
        &["query"],
        &["tail"],
        &["ledger"],
        &["dead-letters", "list"],
        &["dead-letters", "show"],
        &["dead-letters", "redrive"],
        &["replay"],
        &["backtest"],
        &["explain"],
        &["check"],
        &["simulate"],
    ];
    for command in commands {
        let help = place.run(&[command, &["--help"]].concat());
        assert_eq!(code(&help), 0, "{command:?}");
        assert!(text(&help).contains("Examples:\n  "), "{command:?}: {}", text(&help));
    }
}

#[test]
fn what_is_wrong_is_named_and_ends_with_2() {
    let place = Place::new();
    place.write("unknown.toml", &PIPELINE.replace("format", "fromat"));
    place.write("setting.toml", &format!("{PIPELINE}[stages.settings]\nsample = \"often\"\n"));
    place.write("order.toml", &PIPELINE.replace("\"write\"", "\"enrich\""));
    let cases: [(&[&str], &[&str]); 10] = [
        (&["fly"], &["fly"]),
        (&["run", "missing.toml"], &["missing.toml"]),
        (&["run", "unknown.toml"], &["unknown.toml:5", "fromat"]),
        (&["check", "setting.toml"], &["setting.toml:16", "stages.write.settings.sample", "often"]),
        (&["check", "order.toml"], &["enrich", "writer", "stage"]),
        (&["check", "small.toml", "--components", "nowhere"], &["nowhere/fetch.wasm"]),
        (&["run", "small.toml", "--input", "missing.ndjson"], &["missing.ndjson"]),
        (&["query", "trades", "--data", "nowhere"], &["nowhere"]),
        (&["tail", "averages", "--data", "nowhere"], &["nowhere", "tapeline up"]),
        (&["simulate", "--symbols", "btc"], &["symbols[0]", "btc", "A-Z"]),
    ];
    for (arguments, words) in cases {
        let output = place.run(arguments);
        let said = errors(&output);
        assert_eq!(code(&output), EXIT_WRONG, "{arguments:?}: {said}");
        assert!(said.starts_with("error: ") && text(&output).is_empty(), "{arguments:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{arguments:?}: {word:?} is not in {said}");
        }
        assert!(arguments[0] == "fly" || said.lines().count() <= 3, "{arguments:?}: {said}");
    }
}

#[test]
fn a_checked_pipeline_is_described() {
    let place = Place::new();
    let output = place.run(&["check", "small.toml"]);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    for word in ["pipeline small", "fetcher", "dedup.wasm", "sha256:", "trade", "256 MiB", "5s"] {
        assert!(text(&output).contains(word), "{word:?} is not in {}", text(&output));
    }
}

#[test]
fn a_finished_job_that_is_run_again_does_nothing() {
    let place = Place::new();
    place.record("trades.ndjson");
    let run = ["run", "small.toml", "--input", "trades.ndjson", "--summary", "json"];
    let first = place.run(&run);
    assert_eq!(code(&first), 0, "{}", errors(&first));
    assert!(errors(&first).is_empty(), "{}", errors(&first));
    let summary = json(&first);
    let lines = fs::read_to_string(place.path().join("trades.ndjson")).unwrap().lines().count();
    assert_eq!(summary["events_in"], lines, "{summary}");
    assert_eq!(summary["rows"]["trades"], TRADES, "{summary}");
    assert_ne!(summary["duplicates"], 0, "{summary}");
    let query = ["query", "trades", "--format", "csv"];
    let rows = text(&place.run(&query));

    let second = place.run(&run);
    assert_eq!(code(&second), 0, "{}", errors(&second));
    assert_eq!(json(&second)["events_in"], 0, "{}", json(&second));
    assert_eq!(text(&place.run(&query)), rows);
    let ledger = place.run(&["ledger"]);
    assert_eq!(code(&ledger), 0, "{}", text(&ledger));
    assert!(text(&ledger).starts_with("stage,symbol,day,in,out,"), "{}", text(&ledger));
}

#[test]
fn standard_input_is_an_input() {
    let place = Place::new();
    let recording = text(&place.run(&["simulate", "--trades", "100", "--noise", "0"]));
    let run = place.run_with_input(&["run", "small.toml", "--input", "-"], &recording);
    assert_eq!(code(&run), 0, "{}", errors(&run));
    assert!(text(&run).contains("100 into trades"), "{}", text(&run));
}

#[test]
fn rows_come_in_three_formats() {
    let place = Place::with_trades();
    let query = |arguments: &[&str]| {
        let output = place.run(&[&["query", "trades", "--symbol", "BTCUSDT", "--limit", "3"], arguments].concat());
        assert_eq!(code(&output), 0, "{}", errors(&output));
        output
    };
    let csv = text(&query(&[]));
    assert!(csv.starts_with("symbol,time,id,price,size,source\n") && csv.lines().count() == 4, "{csv}");
    assert_eq!(text(&query(&["--format", "csv"])), csv);
    let rows = json(&query(&["--format", "json"]));
    assert_eq!(rows.as_array().unwrap().len(), 3);
    assert!(rows[0]["price"].is_number() && rows[0]["symbol"] == "BTCUSDT", "{rows}");
    let table = text(&query(&["--format", "table"]));
    assert!(table.contains("price") && table.lines().count() > 4, "{table}");

    let last = rows[2]["time"].as_str().unwrap();
    let earlier = json(&query(&["--format", "json", "--to", last]));
    assert!(earlier.as_array().unwrap().iter().all(|row| row["time"].as_str().unwrap() < last), "{earlier}");
    let none = json(&query(&["--format", "json", "--from", "2100-01-01"]));
    assert_eq!(none, serde_json::json!([]));
}

#[test]
fn an_unknown_table_lists_the_known_ones() {
    let place = Place::with_trades();
    let output = place.run(&["query", "tades"]);
    assert_eq!(code(&output), EXIT_WRONG);
    assert!(errors(&output).contains("\"tades\"") && errors(&output).contains("trades"), "{}", errors(&output));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let place = Place::with_trades();
    for arguments in [&["query", "trades", "--format", "json"][..], &["simulate", "--trades", "1000000"]] {
        let mut child = place.command(arguments).spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((code(&output), errors(&output).as_str()), (0, ""), "{arguments:?}");
    }
}

#[test]
fn dead_letters_are_listed_shown_and_redriven() {
    let place = Place::new();
    place.write("bad.ndjson", "1723075200000000000 {\"stream\":\"btcusdt@trade\",\"data\":{\"e\":\"trade\"}}\n");
    let run = place.run(&["run", "small.toml", "--input", "bad.ndjson"]);
    assert_eq!(code(&run), EXIT_DEAD_LETTERS, "{}{}", text(&run), errors(&run));
    assert!(text(&run).contains("tapeline dead-letters list"), "{}", text(&run));

    let letters = || json(&place.run(&["dead-letters", "list", "--format", "json"]));
    assert_eq!(letters().as_array().unwrap().len(), 1);
    assert_eq!((&letters()[0]["stage"], &letters()[0]["redriven"]), (&"fetch".into(), &false.into()));
    let shown = place.run(&["dead-letters", "show", "1"]);
    assert!(
        text(&shown).ends_with("\n\n{\"stream\":\"btcusdt@trade\",\"data\":{\"e\":\"trade\"}}\n"),
        "{}",
        text(&shown)
    );
    assert_eq!(code(&place.run(&["dead-letters", "show", "2"])), EXIT_WRONG);
    assert_eq!(code(&place.run(&["dead-letters", "redrive"])), EXIT_WRONG);

    let redrive = || text(&place.run(&["dead-letters", "redrive", "--all"]));
    assert!(redrive().starts_with("dead letters put back into the journal: 1\n"));
    assert_eq!(redrive(), "dead letters put back into the journal: 0\n");
    let again = place.run(&["run", "small.toml"]);
    assert_eq!(code(&again), EXIT_DEAD_LETTERS, "{}{}", text(&again), errors(&again));
    assert_eq!(letters().as_array().unwrap().len(), 2);
    assert_eq!(letters()[0]["redriven"], true);
    assert_eq!(code(&place.run(&["ledger"])), 0);
}

#[test]
fn a_stage_answers_by_itself() {
    let place = Place::new();
    let line =
        r#"{"kind":"trade","symbol":"BTCUSDT","time":"2024-08-08T23:54:15.342Z","id":7,"price":61837.63,"size":0.02}"#;
    let output = place.run_with_input(&["invoke", "dedup"], &format!("{line}\n{line}\n"));
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert_eq!(text(&output).lines().count(), 1, "{}", text(&output));
    assert!(errors(&output).starts_with("in 2, out 1, duplicate 1,"), "{}", errors(&output));

    let wrong = place.run_with_input(&["invoke", "dedup"], "no json\n");
    assert_eq!(code(&wrong), EXIT_WRONG, "{}", errors(&wrong));
    let wrong = place.run_with_input(&["invoke", "dedup", "--settings", "{\"policy\": \"ids\"}"], "");
    assert!(code(&wrong) == EXIT_WRONG && errors(&wrong).contains("policy"), "{}", errors(&wrong));
}

/// A process that is stopped with the test at the latest.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Asks it to stop, and waits until it has.
    #[cfg(unix)]
    fn stop(&mut self) -> Option<i32> {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(asked.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It fails when the process has ended, as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[cfg(unix)]
fn a_running_pipeline_is_fed_followed_queried_and_stopped() {
    let place = Place::new();
    let mut up = Running::start(place.command(&["up", "small.toml", "--listen", "127.0.0.1:0"]));
    let said = up.line();
    let address = said.strip_prefix("listening on ").unwrap_or_else(|| panic!("{said}"));
    let file = place.path().join("data/address");
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), address);
    let unknown = place.run(&["tail", "nothing"]);
    assert!(code(&unknown) == EXIT_WRONG && errors(&unknown).contains("small.dedup.0"), "{}", errors(&unknown));

    let mut tail = Running::start(place.command(&["tail", "fetch"]));
    let recording = text(&place.run(&["simulate", "--trades", "20", "--noise", "0"]));
    let frames = recording.lines().filter_map(|line| line.split_once(' '));
    let frames: String = frames.map(|(_, frame)| format!("{frame}\n")).collect();
    let url = format!("{address}/pipelines/small/events?format=binance");
    let follower = thread::spawn(move || {
        let line = tail.line();
        (tail, line)
    });
    // When somebody has begun to follow cannot be seen; what is sent again goes through fetch again.
    while !follower.is_finished() {
        ureq::post(&url).send(&frames).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
    let (mut tail, line) = follower.join().unwrap();
    assert!(line.starts_with("{\"kind\":\"trade\""), "{line}");
    let rows = json(&place.run(&["query", "trades", "--format", "json"]));
    assert_eq!(rows.as_array().unwrap().len(), 20, "{rows}");

    assert_eq!(up.stop(), Some(0));
    assert!(!file.exists());
    let mut rest = String::new();
    tail.output.read_to_string(&mut rest).unwrap();
    assert_eq!(tail.child.wait().unwrap().code(), Some(0));
}
