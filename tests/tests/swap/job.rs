//! A market that is sent into a live pipeline, and what an undisturbed one makes of it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use tapeline_tests::{live::LiveHost, program};
use tempfile::TempDir;

/// Name of the pipeline.
pub(super) const NAME: &str = "swaps";
/// All stages.
pub(super) const STAGES: [&str; 6] = ["fetch", "dedup", "enrich", "aggregate", "alarm", "write"];

/// All six stages; commits often, and never by the clock.
pub(super) const MAIN: &str = r#"
name = "swaps"
[source]
format = "binance"
[watermark]
delay = "2s"
idle = "24h"
[commit]
every = "5ms"
[swap]
probation = 300
dead_share = 0.0
[[stages]]
name = "fetch"
[[stages]]
name = "dedup"
[[stages]]
name = "enrich"
[[stages]]
name = "aggregate"
[stages.settings]
bars = ["1m"]
windows = ["5m"]
[[stages]]
name = "alarm"
[stages.settings]
absolute = 0.05
[[stages]]
name = "write"
[stages.settings]
tables = ["trades", "bars", "averages", "alarms"]
objects = ["trades"]
"#;

/// With a stage that can be made to fail; as it is, it fails never.
pub(super) const ODD: &str = r#"
name = "swaps"
[source]
format = "binance"
[watermark]
delay = "2s"
idle = "24h"
[commit]
every = "5ms"
[swap]
probation = 10000
dead_share = 0.0
compile_time = "20s"
[[stages]]
name = "fetch"
[[stages]]
name = "odd"
component = "COMPONENTS/test/faulty.wasm"
time_per_batch = "1s"
memory_mib = 64
[stages.settings]
fault = "reject"
every = 1000000000000
remainder = 0
[[stages]]
name = "write"
[stages.settings]
tables = ["trades"]
objects = []
"#;

/// A market, and what is left when nothing is changed meanwhile.
pub(super) struct Job {
    folder: TempDir,
    text: String,
    pub(super) pipeline: PathBuf,
    expected: Stored,
}

#[derive(PartialEq)]
struct Stored {
    tables: BTreeMap<String, String>,
    objects: BTreeMap<String, Vec<u8>>,
    ledger: String,
    dead_letters: String,
}

impl Stored {
    fn read(data: &Path) -> Result<Self> {
        let folder = data.to_str().context("a temporary folder has a name")?;
        let read = |arguments: &[&str]| program::output(&[arguments, &["--data", folder]].concat());
        let mut tables = BTreeMap::new();
        for table in ["trades", "bars", "averages", "alarms"] {
            // A pipeline does not have to fill all.
            let rows = read(&["query", table, "--format", "csv"]).unwrap_or_default();
            tables.insert(table.to_owned(), rows);
        }
        let dead_letters = read(&["dead-letters", "list", "--format", "csv"])?;
        let objects = if data.join("objects").exists() { program::objects(data)? } else { BTreeMap::new() };
        Ok(Self { tables, objects, ledger: read(&["ledger"])?, dead_letters })
    }
}

impl Job {
    pub(super) fn new(pipeline: &str, trades: u64) -> Result<Self> {
        let folder = TempDir::new()?;
        let arguments =
            ["simulate", "--trades", &trades.to_string(), "--rate", "200", "--symbols", "BTCUSDT,ETHUSDT,SOLUSDT"];
        // Without the receive times in front: a live pipeline has its own clock.
        let text = program::output(&arguments)?;
        let text: Vec<&str> = text.lines().map(|line| line.split_once(' ').map_or(line, |(_, frame)| frame)).collect();
        let path = folder.path().join("pipeline.toml");
        let components = program::components();
        fs::write(&path, pipeline.replace("COMPONENTS", components.to_str().context("a path of text")?))?;
        let mut job = Self {
            text: text.join("\n"),
            pipeline: path,
            expected: Stored {
                tables: BTreeMap::new(),
                objects: BTreeMap::new(),
                ledger: String::new(),
                dead_letters: String::new(),
            },
            folder,
        };
        let host = job.start("expected")?;
        for chunk in job.lines().chunks(5_000) {
            host.send(NAME, chunk)?;
        }
        let data = host.data.clone();
        host.stop()?;
        job.end(&data)?;
        job.expected = Stored::read(&data)?;
        ensure!(job.expected.tables["trades"].lines().count() > 1, "nothing is written");
        Ok(job)
    }

    pub(super) fn lines(&self) -> Vec<&str> {
        self.text.lines().collect()
    }

    pub(super) fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn start(&self, name: &str) -> Result<LiveHost> {
        LiveHost::start(&self.pipeline, &self.data(name), &[])
    }

    /// Lets the watermark of a pipeline that has stopped pass everything.
    fn end(&self, data: &Path) -> Result<()> {
        let nothing = self.folder.path().join("nothing.txt");
        fs::write(&nothing, "")?;
        let run = program::run(&self.pipeline, &[&nothing], data)?;
        ensure!(run.code == 0 || run.code == 3, "exit code {}: {}", run.code, run.errors);
        Ok(())
    }

    /// Stops a host that was sent everything, and compares what is left.
    pub(super) fn finish(&self, host: LiveHost) -> Result<()> {
        let data = host.data.clone();
        host.stop()?;
        self.end(&data)?;
        self.check(&data)
    }

    /// As [`Self::finish`], where dead letters say of a batch where they are from, and batches are not the same.
    pub(super) fn finish_but_for_dead_letters(&self, host: LiveHost) -> Result<()> {
        let data = host.data.clone();
        host.stop()?;
        self.end(&data)?;
        let mut found = Stored::read(&data)?;
        let count = |text: &str| text.lines().count();
        ensure!(count(&found.dead_letters) == count(&self.expected.dead_letters), "{}", found.dead_letters);
        found.dead_letters.clone_from(&self.expected.dead_letters);
        self.compare(&found)
    }

    fn check(&self, data: &Path) -> Result<()> {
        self.compare(&Stored::read(data)?)
    }

    fn compare(&self, found: &Stored) -> Result<()> {
        ensure!(found.ledger == self.expected.ledger, "the ledger is\n{}\nnot\n{}", found.ledger, self.expected.ledger);
        for (table, rows) in &self.expected.tables {
            let lines = |text: &str| text.lines().count();
            let (wanted, is) = (lines(rows), lines(&found.tables[table]));
            ensure!(found.tables[table] == *rows, "table {table} differs: {is} lines, not {wanted}");
        }
        ensure!(found.objects == self.expected.objects, "the objects differ");
        ensure!(found.dead_letters == self.expected.dead_letters, "dead letters: {}", found.dead_letters);
        Ok(())
    }
}
