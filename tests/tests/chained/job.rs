//! A market, what one process makes of it, and running it through a chain.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tapeline::store::{SqliteStore, Store as _};
use tapeline_tests::{cluster::Host, program};
use tempfile::TempDir;

/// The stages between the first and the last.
pub(super) const BETWEEN: &str = "dedup,enrich,aggregate,alarm";
/// All stages.
pub(super) const ALL: &str = "fetch,dedup,enrich,aggregate,alarm,write";
/// How long a job may take that is not disturbed; it takes about a second
/// on a machine that does nothing else.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// A market, and what one process makes of it.
pub(super) struct Job {
    pub(super) folder: TempDir,
    pub(super) market: PathBuf,
    pub(super) expected: Stored,
}

/// All that a job leaves.
#[derive(PartialEq)]
pub(super) struct Stored {
    pub(super) tables: BTreeMap<String, String>,
    pub(super) objects: BTreeMap<String, Vec<u8>>,
    pub(super) ledger: String,
}

impl Stored {
    pub(super) fn read(data: &Path) -> Result<Self> {
        let folder = data.to_str().context("a temporary folder has a name")?;
        let ledger = program::output(&["ledger", "--data", folder])?;
        Ok(Self { tables: program::tables(data)?, objects: program::objects(data)?, ledger })
    }

    pub(super) fn check(&self, data: &Path) -> Result<()> {
        let found = self.check_data(data)?;
        ensure!(found.ledger == self.ledger, "the ledger is\n{}\nnot\n{}", found.ledger, self.ledger);
        Ok(())
    }

    /// Compares all but the ledger, which has a message without an event by the day on which it was received.
    pub(super) fn check_data(&self, data: &Path) -> Result<Self> {
        let found = Self::read(data)?;
        for (table, rows) in &self.tables {
            let lines = |text: &str| text.lines().count();
            let (wanted, is) = (lines(rows), lines(&found.tables[table]));
            ensure!(found.tables[table] == *rows, "table {table} differs: {is} lines, not {wanted}");
        }
        ensure!(found.objects == self.objects, "the objects differ");
        Ok(found)
    }
}

impl Job {
    pub(super) fn new(trades: u64, pipeline: &Path) -> Result<Self> {
        let folder = TempDir::new()?;
        let (market, data) = (folder.path().join("market.txt"), folder.path().join("expected"));
        let arguments =
            ["simulate", "--trades", &trades.to_string(), "--rate", "200", "--symbols", "BTCUSDT,ETHUSDT,SOLUSDT"];
        fs::write(&market, program::output(&arguments)?)?;
        let run = program::run(pipeline, &[&market], &data)?;
        ensure!(run.code == 0 || run.code == 3, "exit code {}: {}", run.code, run.errors);
        let expected = Stored::read(&data)?;
        Ok(Self { folder, market, expected })
    }

    /// A pipeline file with a name of its own, so that it has streams of its own, and with settings of NATS.
    pub(super) fn pipeline(&self, text: &str, name: &str, nats: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(format!("{name}.toml"));
        let text = text.replacen("name = \"bitcoin-trades\"", &format!("name = \"{name}\""), 1);
        let is_nats = |line: &&str| {
            ["[nats]", "partitions =", "replicas =", "stream_mib =", "fuse ="].iter().any(|key| line.starts_with(key))
        };
        let others: Vec<&str> = text.lines().filter(|line| !is_nats(line)).collect();
        // A server sets aside what streams may hold, and a test must not need gigabytes.
        let room = if nats.contains("stream_mib") { "" } else { "stream_mib = 32" };
        fs::write(&path, format!("{}\n[nats]\n{nats}\n{room}\n", others.join("\n")))?;
        Ok(path)
    }

    pub(super) fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn arguments(&self, pipeline: &Path, data: &Path, url: &str, stages: &str) -> Vec<OsString> {
        let mut arguments = program::run_arguments(pipeline, &[&self.market], data);
        arguments.extend(["--nats", url, "--stages", stages].map(OsString::from));
        arguments
    }

    /// Runs it to its end, both ends and these stages here.
    pub(super) fn run(&self, pipeline: &Path, data: &Path, url: &str, stages: &str) -> Result<()> {
        let mut host = Host::spawn(&self.arguments(pipeline, data, url, stages), data)?;
        let started = Instant::now();
        loop {
            match host.exit_code()? {
                Some(0 | 3) => return Ok(()),
                Some(code) => bail!("exit code {code}: {}", host.errors()),
                None if started.elapsed() > PATIENCE => bail!("it does not end: {}", host.errors()),
                None => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

pub(super) fn bitcoin() -> Result<String> {
    Ok(fs::read_to_string(program::bitcoin_pipeline())?)
}

/// Trades that have been written.
pub(super) fn written(data: &Path) -> u64 {
    let ledger = SqliteStore::open_reader(data).and_then(|store| store.ledger()).unwrap_or_default();
    ledger.iter().filter(|(key, _)| key.stage == "write").map(|(_, counts)| counts.entered).sum()
}

/// Waits until something is so, for as long as it may take.
pub(super) fn wait_for(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !is_so()? {
        ensure!(started.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
