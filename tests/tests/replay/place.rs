//! A folder with a recording, and the commands that are run on what is made of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tapeline::{pipeline::replay, store::SqliteStore};
use tapeline_tests::program;
use tempfile::TempDir;

use super::{EXIT_DEAD_LETTERS, Result, TRADES, check};

/// A folder with a recording, and what is made in it.
pub(super) struct Place {
    pub(super) folder: TempDir,
    pub(super) pipeline: PathBuf,
}

impl Place {
    pub(super) fn new() -> Result<Self> {
        let folder = TempDir::new()?;
        let recording = program::output(&["simulate", "--trades", TRADES, "--rate", "40"])?;
        fs::write(folder.path().join("market.ndjson"), recording)?;
        Ok(Self { folder, pipeline: program::bitcoin_pipeline() })
    }

    /// A place where the recording has been run, with some of its pipeline replaced.
    pub(super) fn with_run(edits: &[(&str, &str)]) -> Result<Self> {
        let mut place = Self::new()?;
        place.pipeline = place.edited("own.toml", edits)?;
        let (market, data) = (place.path("market.ndjson"), place.path("data"));
        let run = program::run(&place.pipeline, &[&market], &data)?;
        check(run.code == 0 || run.code == EXIT_DEAD_LETTERS, format!("exit code {}: {}", run.code, run.errors))?;
        Ok(place)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn edited(&self, name: &str, edits: &[(&str, &str)]) -> Result<PathBuf> {
        let mut text = fs::read_to_string(program::bitcoin_pipeline())?;
        for (from, to) in edits {
            check(text.contains(from), format!("{from:?} is not in the pipeline file"))?;
            text = text.replace(from, to);
        }
        let path = self.path(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Runs a command on the data folder.
    pub(super) fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Output> {
        let mut command = Command::new(program::path());
        command.args(arguments).arg("--data").arg(self.path("data")).arg("--components").arg(program::components());
        Ok(command.current_dir(self.folder.path()).stdin(Stdio::null()).output()?)
    }

    /// Runs a command that has to succeed, and gives its output.
    pub(super) fn text<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<String> {
        let output = self.run(arguments)?;
        check(output.status.success(), format!("{}: {}", output.status, errors(&output)))?;
        Ok(String::from_utf8(output.stdout)?)
    }

    pub(super) fn replay_of(&self, pipeline: &Path, arguments: &[&str]) -> Result<Value> {
        let mut all: Vec<&OsStr> = ["replay", "--format", "json"].map(OsStr::new).into();
        all.push(pipeline.as_ref());
        all.extend(arguments.iter().map(OsStr::new));
        Ok(serde_json::from_str(&self.text(&all)?)?)
    }

    pub(super) fn replay(&self, arguments: &[&str]) -> Result<Value> {
        self.replay_of(&self.pipeline, arguments)
    }

    /// The digest of what is stored.
    pub(super) fn stored(&self) -> Result<String> {
        Ok(replay::Output::of(&SqliteStore::open_reader(&self.path("data"))?)?.digest)
    }

    pub(super) fn alarms(&self) -> Result<Vec<String>> {
        let text = self.text(&["query", "alarms", "--format", "csv"])?;
        Ok(text.lines().skip(1).map(str::to_owned).collect())
    }

    pub(super) fn explain(&self, alarm: &str, pipeline: &Path) -> Result<Output> {
        self.run(&[
            OsStr::new("explain"),
            OsStr::new(alarm),
            pipeline.as_ref(),
            OsStr::new("--format"),
            OsStr::new("json"),
        ])
    }

    /// The alarms that a backtest counts: total by tolerance, and by tolerance, symbol and window.
    pub(super) fn backtest(&self, tolerance: &str, steps: &str) -> Result<Counts> {
        let pipeline = self.pipeline.to_str().ok_or("a temporary folder has a name")?;
        let arguments = ["backtest", "alarm", pipeline, "--tolerance", tolerance, "--steps", steps, "--format", "json"];
        let rows: Vec<Value> = serde_json::from_str(&self.text(&arguments)?)?;
        let mut counts = Counts::default();
        for row in rows {
            let text = |column: &str| row[column].as_str().unwrap_or_default().to_owned();
            let number = |column: &str| row[column].as_u64().unwrap_or(u64::MAX);
            let tolerance = row["tolerance"].to_string();
            if counts.totals.last().is_none_or(|(last, _)| *last != tolerance) {
                counts.totals.push((tolerance.clone(), number("total")));
            }
            counts.each.insert((tolerance, text("symbol"), text("window")), number("alarms"));
        }
        Ok(counts)
    }
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) totals: Vec<(String, u64)>,
    pub(super) each: BTreeMap<(String, String, String), u64>,
}

pub(super) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The frames of the trades of the recording, without repeats, in two halves, with how many trades each has.
pub(super) fn halves(market: &str) -> (Vec<&str>, Vec<&str>) {
    let mut seen = BTreeSet::new();
    let frames = market.lines().filter_map(|line| line.split_once(' ').map(|(_, frame)| frame));
    let trades: Vec<&str> = frames.filter(|frame| frame.contains("\"trade\"") && seen.insert(*frame)).collect();
    let (first, second) = trades.split_at(trades.len() / 2);
    (first.to_vec(), second.to_vec())
}
