//! Several hosts write: their tables are in a store that they share, on a local AWS by AWS' own clients.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use serde_json::Value;
use tapeline_harness::{
    local_aws::LocalAws,
    shared_store::{self, STACK},
};
use tapeline_tests::{cluster::NatsServer, listening::Listening, program};
use tempfile::TempDir;

use super::{
    chaos::{SEED, seed},
    job::{PATIENCE, bitcoin, wait_for},
};

/// Every stage but the first one.
const BEHIND_THE_FIRST: &str = "dedup,enrich,aggregate,alarm,write";
const TABLES: [&str; 4] = ["trades", "bars", "averages", "alarms"];
const TRADES: u64 = 12_000;
/// Records of a request.
const REQUEST_RECORDS: usize = 500;
/// So often the clock says nothing: what is stored must not depend on it.
const IDLE: &str = "1h";

/// Rows by table, in an order of their own: the texts of their columns, those of numbers as Rust writes them.
type Tables = BTreeMap<String, Vec<BTreeMap<String, String>>>;

/// A chain whose hosts share a store.
struct Shared {
    folder: TempDir,
    aws: LocalAws,
    server: NatsServer,
    pipeline: PathBuf,
}

impl Shared {
    fn start(name: &str) -> Result<Self> {
        let folder = TempDir::new()?;
        let text = bitcoin()?.replacen("name = \"bitcoin-trades\"", &format!("name = \"{name}\""), 1);
        ensure!(text.contains("[watermark]\n") && text.contains("[nats]\n"), "the pipeline file has other sections");
        let others = |line: &&str| !["idle =", "partitions =", "stream_mib ="].iter().any(|key| line.starts_with(key));
        let text = text.lines().filter(others).collect::<Vec<_>>().join("\n");
        let text = text.replacen("[watermark]\n", &format!("[watermark]\nidle = \"{IDLE}\"\n"), 1);
        let text = text.replacen("[nats]\n", "[nats]\npartitions = 3\nstream_mib = 32\n", 1);
        let pipeline = folder.path().join("pipeline.toml");
        fs::write(&pipeline, text)?;
        let aws = LocalAws::start()?;
        shared_store::create(&aws, name)?;
        let server = NatsServer::start(&folder.path().join("nats"))?;
        Ok(Self { folder, aws, server, pipeline })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program::path());
        command.args(words).env_remove("AWS_PROFILE").envs(self.aws.environment());
        command
    }

    /// A host of stages, which writes to the store, or the one process that has all if none are named.
    fn host(&self, data: &str, stages: Option<&str>) -> Result<Listening> {
        self.host_of(&self.server, data, stages)
    }

    /// The same on another server.
    fn host_of(&self, server: &NatsServer, data: &str, stages: Option<&str>) -> Result<Listening> {
        let mut up = self.command(&["up", "--no-source", "--listen", "127.0.0.1:0"]);
        up.arg("--components").arg(program::components()).arg("--data").arg(self.data(data)).arg(&self.pipeline);
        if let Some(stages) = stages {
            up.args(["--nats", &server.url(), "--aws", STACK, "--stages", stages]);
        }
        let errors = fs::File::options().create(true).append(true).open(self.folder.path().join("errors.txt"))?;
        Listening::start(up.stdout(Stdio::piped()).stderr(errors)).with_context(|| self.errors())
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What hosts have complained of.
    fn errors(&self) -> String {
        fs::read_to_string(self.folder.path().join("errors.txt")).unwrap_or_default()
    }

    fn output(&self, words: &[&str]) -> Result<String> {
        let output = self.command(words).output()?;
        ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What `ledger` and `query` say of the store, or of a data folder.
    fn ledger(&self, of: [&str; 2]) -> Result<String> {
        self.output(&["ledger", of[0], of[1], "--format", "json"])
    }

    fn tables(&self, of: [&str; 2]) -> Result<Tables> {
        let rows = |table: &str| {
            let text = self.output(&["query", table, of[0], of[1], "--format", "json"])?;
            let rows: Vec<BTreeMap<String, Value>> = serde_json::from_str(&text)?;
            let row = |row: BTreeMap<String, Value>| row.into_iter().map(|(name, value)| (name, text_of(&value)));
            let mut rows: Vec<BTreeMap<String, String>> = rows.into_iter().map(|cells| row(cells).collect()).collect();
            rows.sort();
            anyhow::Ok((table.to_owned(), rows))
        };
        TABLES.iter().map(|table| rows(table)).collect()
    }

    /// The files, each with its parts put together: the first with the header, the others without. Parts of one partition
    /// are in order; a file is of one symbol, and that of one partition.
    fn files(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let bucket = self.output_of_stack("ObjectsBucket")?;
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for key in self.aws.keys(&bucket)? {
            let (path, _) = key.rsplit_once('/').with_context(|| format!("a part in {key}"))?;
            let part = self.aws.object(&bucket, &key)?;
            let header = part.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default().len();
            match files.get_mut(path) {
                None => _ = files.insert(path.to_owned(), part),
                Some(file) => file.extend(part.get(header..).unwrap_or_default()),
            }
        }
        Ok(files)
    }

    fn output_of_stack(&self, name: &str) -> Result<String> {
        self.aws.stack_output(STACK, name)
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), |number| number.to_string()),
        other => other.to_string(),
    }
}

fn send(host: &Listening, name: &str, lines: &[&str]) -> Result<()> {
    let url = format!("http://{}/pipelines/{name}/events?format=binance", host.address);
    let answer = ureq::post(&url).content_type("application/x-ndjson").send(lines.join("\n"))?;
    ensure!(answer.status() == 202, "{}", answer.status());
    Ok(())
}

fn market(folder: &Path) -> Result<String> {
    let market = folder.join("market.txt");
    let arguments =
        ["simulate", "--trades", &TRADES.to_string(), "--rate", "200", "--symbols", "BTCUSDT,ETHUSDT,SOLUSDT,XRPUSDT"];
    fs::write(&market, program::output(&arguments)?)?;
    Ok(fs::read_to_string(market)?)
}

/// What one process stores of a market: its ledger, its rows and its files.
fn embedded(shared: &Shared, name: &str, lines: &[&str]) -> Result<(String, Tables, BTreeMap<String, Vec<u8>>)> {
    let host = shared.host("one", None)?;
    lines.chunks(REQUEST_RECORDS).try_for_each(|some| send(&host, name, some))?;
    host.stop()?;
    let data = shared.data("one");
    let of = ["--data", data.to_str().context("a temporary folder has a name")?];
    Ok((shared.ledger(of)?, shared.tables(of)?, program::objects(&data)?))
}

pub(super) fn hosts_that_share_a_store_and_are_killed_store_what_one_process_stores() -> Result<()> {
    let (name, aws) = ("shared", ["--aws", STACK]);
    let shared = Shared::start(name)?;
    let market = market(shared.folder.path())?;
    // Each line of a recording begins with when it came.
    let lines = market.lines().filter_map(|line| line.split_once(' ')).map(|(_, record)| record);
    let lines: Vec<&str> = lines.chain(["what nobody can read"; 30]).collect();
    let (ledger, tables, files) = embedded(&shared, name, &lines)?;
    let seed = seed()?;
    println!("{SEED}={seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let source = shared.host("source", Some("fetch"))?;
    let worker = |at: usize| shared.host(["a", "b"][at], Some(BEHIND_THE_FIRST)).map(Some);
    let mut workers = [worker(0)?, worker(1)?];
    let (mut kills, mut keepers) = (0, 0);
    for some in lines.chunks(REQUEST_RECORDS) {
        send(&source, name, some)?;
        thread::sleep(Duration::from_millis(u64::from(random.next_u32() % 300)));
        if random.next_u32().is_multiple_of(4) {
            let at = (random.next_u32() % 2) as usize;
            // With -9, whatever it does at that moment.
            match (&workers[at], random.next_u32() % 2) {
                // The process of its store, which it starts again.
                (Some(host), 0) => keepers += kill_keeper(host.id())?,
                // The host; the process of its store is at it a little longer.
                _ => {
                    workers[at] = None;
                    workers[at] = worker(at)?;
                    kills += 1;
                }
            }
        }
    }
    println!("killed {kills} hosts, {keepers} processes of stores");
    ensure!(kills > 0 && keepers > 0, "nobody was killed with {SEED}={seed}");
    let since = Instant::now();
    while shared.ledger(aws)? != ledger {
        let found = || shared.ledger(aws).unwrap_or_default();
        ensure!(since.elapsed() < PATIENCE, "the ledger is\n{}\nnot\n{ledger}\n{}", found(), shared.errors());
        thread::sleep(Duration::from_millis(200));
    }
    let asked =
        ureq::get(format!("http://{}/tables", source.address)).config().http_status_as_error(false).build().call();
    let told = asked?.body_mut().read_to_string()?;
    ensure!(told.contains("tapeline query TABLE --aws stores"), "{told}");
    workers.into_iter().flatten().try_for_each(Listening::stop)?;
    source.stop()?;
    let found = shared.tables(aws)?;
    for (table, rows) in &tables {
        ensure!(!rows.is_empty() || table == "alarms", "there is nothing in {table}");
        let others = &found[table];
        let difference = rows.iter().zip(others).find(|(one, other)| one != other);
        ensure!(rows == others, "{table}: {} rows, not {}: {difference:?}", others.len(), rows.len());
    }
    ensure!(!files.is_empty() && shared.files()? == files, "the files differ");
    let letters = shared.aws.count(&shared.output_of_stack("DeadLettersTable")?)?;
    let expected = shared.output(&["dead-letters", "list", "--data", &shared.data("one").display().to_string()])?;
    let expected = expected.lines().count().saturating_sub(1) as u64;
    ensure!(letters == expected && letters >= 30, "{letters} dead letters, not {expected}");
    Ok(())
}

/// Kills what a host has started to keep its store; how many of these there were.
fn kill_keeper(host: u32) -> Result<usize> {
    let tasks = fs::read_dir(format!("/proc/{host}/task"))?.filter_map(Result::ok);
    let children: Vec<String> =
        tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok()).collect();
    let ids = children.iter().flat_map(|ids| ids.split_whitespace()).filter_map(|id| id.parse().ok());
    Ok(ids.filter(|id| kill(Pid::from_raw(*id), Signal::SIGKILL).is_ok()).count())
}

pub(super) fn a_store_of_another_chain_is_refused() -> Result<()> {
    let name = "refused";
    let shared = Shared::start(name)?;
    let trade = r#"{"stream":"btcusdt@trade","data":{"e":"trade","E":0,"s":"BTCUSDT","t":1,"p":"1.5","q":"1","T":1700000000000,"m":true,"M":true}}"#;
    // A chain that has begun on another broker, before anything was written.
    let other = NatsServer::start(&shared.data("other-nats"))?;
    let source = shared.host_of(&other, "other", Some("fetch"))?;
    send(&source, name, &[trade])?;
    source.stop()?;
    let all = ["fetch", BEHIND_THE_FIRST].join(",");
    let first = shared.host("first", Some(&all))?;
    send(&first, name, &[trade])?;
    let is_written = || Ok(shared.ledger(["--aws", STACK])?.contains("\"write\""));
    wait_for("the trade is written", is_written)?;
    first.stop()?;
    let mut writer = shared.host_of(&other, "writer", Some(BEHIND_THE_FIRST))?;
    wait_for("the other chain stops", || Ok(shared.errors().contains("deploy another stack for this one")))?;
    wait_for("its host ends", || Ok(writer.has_ended()))?;
    // What a broker knows nothing of would be numbered from 1 again, by a new folder and by the same.
    let newer = NatsServer::start(&shared.data("newer-nats"))?;
    for data in ["first", "second"] {
        let refused = shared.host_of(&newer, data, Some(&all)).map(drop).map_err(|error| format!("{error:#}"));
        ensure!(refused.as_ref().is_err_and(|told| told.contains("of which the broker knows nothing")), "{refused:?}");
    }
    let ended = |words: &[&str], why: &str| {
        let mut up = shared.command(&["up", "--listen", "127.0.0.1:0", "--nats", &shared.server.url()]);
        up.args(words).arg("--components").arg(program::components()).arg("--data").arg(shared.data("third"));
        let output = up.arg(&shared.pipeline).output()?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(2) && errors.contains(why), "{}: {errors}", output.status);
        anyhow::Ok(())
    };
    ended(&["--aws", "nobodys"], "there is none of the name")?;
    ended(&["--stages", "fetch"], "unless --aws names a store for all")
}
