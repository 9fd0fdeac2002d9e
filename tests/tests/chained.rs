//! A pipeline chained by a real NATS server: the same tables, objects and ledger as in one process, whatever happens.
//! Reported as ignored, by name, where there is no `nats-server`.

#![allow(clippy::print_stdout, reason = "the seed of a schedule is printed, so that it can be repeated")]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use tapeline::store::{SqliteStore, Store as _};
use tapeline_tests::{
    cluster::{Host, NatsServer},
    listening::Listening,
    program,
};
use tempfile::TempDir;

/// The stages between the first and the last.
const BETWEEN: &str = "dedup,enrich,aggregate,alarm";
/// All stages.
const ALL: &str = "fetch,dedup,enrich,aggregate,alarm,write";
/// How long a job may take that is not disturbed; it takes about a second.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long disturbances go on, in seconds, and from which seed; for nightly tests.
const SECONDS: &str = "TAPELINE_CHAOS_SECONDS";
const SEED: &str = "TAPELINE_CHAOS_SEED";

type Test = fn() -> Result<()>;

fn main() {
    let tests: [(&str, Test); 6] = [
        ("one_host_stores_what_one_process_stores", one_host_stores_what_one_process_stores),
        ("three_hosts_store_what_one_process_stores", three_hosts_store_what_one_process_stores),
        ("a_live_chain_goes_on_where_it_was_killed", a_live_chain_goes_on_where_it_was_killed),
        ("a_record_that_traps_is_one_dead_letter", a_record_that_traps_is_one_dead_letter),
        ("a_standby_takes_over_within_five_seconds", a_standby_takes_over_within_five_seconds),
        ("kills_pauses_and_broker_restarts_leave_no_trace", kills_pauses_and_broker_restarts_leave_no_trace),
    ];
    let is_missing = !NatsServer::is_there();
    let trial = |(name, test): (&str, Test)| {
        Trial::test(name, move || test().map_err(|error| Failed::from(format!("{error:#}"))))
            .with_ignored_flag(is_missing)
    };
    let mut arguments = Arguments::from_args();
    // Each has a broker and several hosts: on two cores they would only wait for each other.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, tests.map(trial).into()).exit();
}

/// A market, and what one process makes of it.
struct Job {
    folder: TempDir,
    market: PathBuf,
    expected: Stored,
}

/// All that a job leaves.
#[derive(PartialEq)]
struct Stored {
    tables: BTreeMap<String, String>,
    objects: BTreeMap<String, Vec<u8>>,
    ledger: String,
}

impl Stored {
    fn read(data: &Path) -> Result<Self> {
        let folder = data.to_str().context("a temporary folder has a name")?;
        let ledger = program::output(&["ledger", "--data", folder])?;
        Ok(Self { tables: program::tables(data)?, objects: program::objects(data)?, ledger })
    }

    fn check(&self, data: &Path) -> Result<()> {
        let found = Self::read(data)?;
        for (table, rows) in &self.tables {
            let lines = |text: &str| text.lines().count();
            let (wanted, is) = (lines(rows), lines(&found.tables[table]));
            ensure!(found.tables[table] == *rows, "table {table} differs: {is} lines, not {wanted}");
        }
        ensure!(found.objects == self.objects, "the objects differ");
        ensure!(found.ledger == self.ledger, "the ledger is\n{}\nnot\n{}", found.ledger, self.ledger);
        Ok(())
    }
}

impl Job {
    fn new(trades: u64, pipeline: &Path) -> Result<Self> {
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
    fn pipeline(&self, text: &str, name: &str, nats: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(format!("{name}.toml"));
        let text = text.replacen("name = \"bitcoin-trades\"", &format!("name = \"{name}\""), 1);
        let is_nats = |line: &&str| {
            ["[nats]", "partitions =", "replicas =", "stream_mib =", "fuse ="].iter().any(|key| line.starts_with(key))
        };
        let others: Vec<&str> = text.lines().filter(|line| !is_nats(line)).collect();
        fs::write(&path, format!("{}\n[nats]\n{nats}\n", others.join("\n")))?;
        Ok(path)
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn arguments(&self, pipeline: &Path, data: &Path, url: &str, stages: &str) -> Vec<OsString> {
        let mut arguments = program::run_arguments(pipeline, &[&self.market], data);
        arguments.extend(["--nats", url, "--stages", stages].map(OsString::from));
        arguments
    }

    /// Runs it to its end, both ends and these stages here.
    fn run(&self, pipeline: &Path, data: &Path, url: &str, stages: &str) -> Result<()> {
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

fn bitcoin() -> Result<String> {
    Ok(fs::read_to_string(program::bitcoin_pipeline())?)
}

fn one_host_stores_what_one_process_stores() -> Result<()> {
    let job = Job::new(20_000, &program::bitcoin_pipeline())?;
    let server = NatsServer::start(&job.data("nats"))?;
    for (name, nats) in [
        ("hops", ""),
        ("partitions", "partitions = 3"),
        ("fused", "partitions = 2\nfuse = [['dedup', 'enrich'], ['aggregate', 'alarm']]"),
    ] {
        let (pipeline, data) = (job.pipeline(&bitcoin()?, name, nats)?, job.data(name));
        job.run(&pipeline, &data, &server.url(), ALL)?;
        job.expected.check(&data).context(name)?;
        let other = job.pipeline(&bitcoin()?, name, "partitions = 7")?;
        let refused = job.run(&other, &job.data("refused"), &server.url(), ALL).err().map(|error| error.to_string());
        ensure!(refused.is_some_and(|error| error.contains("divide symbols into 7")), "other partitions were taken");
        let pipeline = job.pipeline(&bitcoin()?, name, nats)?;
        // A finished job does nothing when it is run again.
        job.run(&pipeline, &data, &server.url(), ALL)?;
        job.expected.check(&data).context(name)?;
    }
    Ok(())
}

fn three_hosts_store_what_one_process_stores() -> Result<()> {
    let job = Job::new(20_000, &program::bitcoin_pipeline())?;
    let server = NatsServer::start(&job.data("nats"))?;
    let pipeline = job.pipeline(&bitcoin()?, "three", "partitions = 3")?;
    let host = |name: &str, stages| Host::work(&pipeline, stages, &server.url(), &job.data(name));
    let _hosts = [host("first", BETWEEN)?, host("second", "dedup,alarm")?];
    // The host with both ends runs nothing between them.
    job.run(&pipeline, &job.data("ends"), &server.url(), "fetch,write")?;
    job.expected.check(&job.data("ends"))
}

fn a_live_chain_goes_on_where_it_was_killed() -> Result<()> {
    const EVENTS: u64 = 200;
    let folder = TempDir::new()?;
    let server = NatsServer::start(&folder.path().join("nats"))?;
    let (data, pipeline) = (folder.path().join("data"), program::bitcoin_pipeline());
    for life in 1..=3 {
        let mut up = Command::new(program::path());
        up.args(["up", "--no-source", "--listen", "127.0.0.1:0", "--nats", &server.url(), "--components"]);
        up.arg(program::components()).arg("--data").arg(&data).arg(&pipeline);
        let up = Listening::start(up.stdout(Stdio::piped()))?;
        let events: String = ((life - 1) * EVENTS..life * EVENTS).map(|id| format!(
            "{{\"stream\":\"btcusdt@trade\",\"data\":{{\"e\":\"trade\",\"E\":0,\"s\":\"BTCUSDT\",\"t\":{id},\"p\":\"1.5\",\"q\":\"1\",\"T\":{},\"m\":true,\"M\":true}}}}\n",
            1_700_000_000_000 + id
        )).collect();
        let url = format!("http://{}/pipelines/bitcoin-trades/events?format=binance", up.address);
        let answer = ureq::post(&url).content_type("application/x-ndjson").send(events)?;
        ensure!(answer.status() == 202, "{}", answer.status());
        let sent = Instant::now();
        // Some lives end before all is written: what was taken is durable, and the next one finishes it.
        while life == 3 && written_trades(&data) < life * EVENTS {
            ensure!(sent.elapsed() < PATIENCE, "{} trades are written", written_trades(&data));
            thread::sleep(Duration::from_millis(20));
        }
    }
    let trades = program::query(&data, &["trades"])?;
    ensure!(trades.len() as u64 == 3 * EVENTS, "{} trades", trades.len());
    program::check_ledger(&data)
}

fn written_trades(data: &Path) -> u64 {
    let rows = data.to_str().map(|data| program::output(&["query", "trades", "--data", data, "--format", "csv"]));
    rows.and_then(Result::ok).map_or(0, |rows| rows.lines().count().saturating_sub(1) as u64)
}

fn a_record_that_traps_is_one_dead_letter() -> Result<()> {
    let component = program::components().join("test/faulty.wasm").canonicalize()?;
    let stage = format!(
        "[[stages]]\nname = \"faulty\"\ncomponent = {component:?}\n[stages.settings]\nfault = \"trap\"\nevery = 1000\nremainder = 7\n\n[[stages]]\nname = \"enrich\""
    );
    let text = bitcoin()?.replace("[[stages]]\nname = \"enrich\"", &stage);
    let folder = TempDir::new()?;
    let faulty = folder.path().join("faulty.toml");
    fs::write(&faulty, &text)?;
    let job = Job::new(5_000, &faulty)?;
    let server = NatsServer::start(&job.data("nats"))?;
    let (pipeline, data) = (job.pipeline(&text, "faulty", "")?, job.data("chained"));
    job.run(&pipeline, &data, &server.url(), "fetch,dedup,faulty,enrich,aggregate,alarm,write")?;
    job.expected.check(&data)?;
    let dead = SqliteStore::open_reader(&data)?.dead_letters(0, 1_000)?;
    let expected = SqliteStore::open_reader(&job.data("expected"))?.dead_letters(0, 1_000)?;
    ensure!(!dead.is_empty() && dead.len() == expected.len(), "{} dead letters, not {}", dead.len(), expected.len());
    for letter in dead {
        ensure!(letter.stage == "faulty" && letter.reason.contains("is too much"), "{letter:?}");
        ensure!(letter.component.len() == 64, "{letter:?}");
    }
    Ok(())
}

/// Trades that have been written.
fn written(data: &Path) -> u64 {
    let ledger = SqliteStore::open_reader(data).and_then(|store| store.ledger()).unwrap_or_default();
    ledger.iter().filter(|(key, _)| key.stage == "write").map(|(_, counts)| counts.entered).sum()
}

fn a_standby_takes_over_within_five_seconds() -> Result<()> {
    const TAKEOVER_MAX: Duration = Duration::from_secs(5);
    let job = Job::new(400_000, &program::bitcoin_pipeline())?;
    let server = NatsServer::start(&job.data("nats"))?;
    let pipeline = job.pipeline(&bitcoin()?, "takeover", "")?;
    let data = job.data("ends");
    let mut owner = Host::work(&pipeline, BETWEEN, &server.url(), &job.data("owner"))?;
    let mut ends = Host::spawn(&job.arguments(&pipeline, &data, &server.url(), "fetch,write"), &data)?;
    let started = Instant::now();
    while written(&data) == 0 {
        ensure!(started.elapsed() < PATIENCE, "nothing is written: {}", ends.errors());
        thread::sleep(Duration::from_millis(5));
    }
    let standby = Host::work(&pipeline, BETWEEN, &server.url(), &job.data("standby"))?;
    owner.kill()?;
    thread::sleep(Duration::from_millis(100));
    let (killed, before) = (Instant::now(), written(&data));
    ensure!(ends.exit_code()?.is_none(), "the job was over before its host was killed");
    while written(&data) == before && ends.exit_code()?.is_none() {
        ensure!(killed.elapsed() < TAKEOVER_MAX, "no takeover: {}", standby.errors());
        thread::sleep(Duration::from_millis(10));
    }
    while ends.exit_code()?.is_none() {
        ensure!(killed.elapsed() < PATIENCE, "it does not end: {} {}", ends.errors(), standby.errors());
        thread::sleep(Duration::from_millis(20));
    }
    job.expected.check(&data)
}

fn number_of(variable: &str, default: u64) -> Result<u64> {
    std::env::var(variable).map_or(Ok(default), |text| text.parse().with_context(|| format!("{variable}={text}")))
}

fn kills_pauses_and_broker_restarts_leave_no_trace() -> Result<()> {
    let seed = number_of(SEED, 7)?;
    let time = Duration::from_secs(number_of(SECONDS, 60)?);
    println!("{SEED}={seed} {SECONDS}={}", time.as_secs());
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let job = Job::new(60_000, &program::bitcoin_pipeline())?;
    let mut server = NatsServer::start(&job.data("nats"))?;
    let started = Instant::now();
    let mut round = 0;
    while started.elapsed() < time {
        round += 1;
        let name = format!("round-{round}");
        let pipeline = job.pipeline(&bitcoin()?, &name, "partitions = 2\nstream_mib = 64")?;
        disturb(&job, &name, &pipeline, &mut server, &mut random)
            .with_context(|| format!("round {round}, seed {seed}"))?;
    }
    println!("{round} rounds");
    Ok(())
}

/// Runs a job to its end while hosts and the broker are killed and stopped.
fn disturb(job: &Job, name: &str, pipeline: &Path, server: &mut NatsServer, random: &mut ChaCha8Rng) -> Result<()> {
    /// Longer than every timeout of readers and pins.
    const FREEZE: Duration = Duration::from_millis(4_500);
    const ROUND_MAX: Duration = Duration::from_secs(180);
    let url = server.url();
    let data = job.data(name);
    let start_host = |at: usize| Host::work(pipeline, BETWEEN, &url, &job.data(&format!("{name}-host-{at}")));
    let start_ends = || Host::spawn(&job.arguments(pipeline, &data, &url, "fetch,write"), &data);
    let mut hosts = [start_host(0)?, start_host(1)?];
    let mut ends = start_ends()?;
    let started = Instant::now();
    loop {
        thread::sleep(Duration::from_millis(50 + u64::from(random.next_u32() % 400)));
        match ends.exit_code()? {
            Some(0 | 3) => break,
            // A broker that is not there when a process starts ends it; whoever runs it starts it again.
            Some(_) => ends = start_ends()?,
            None => {}
        }
        ensure!(started.elapsed() < ROUND_MAX, "it does not end: {}", ends.errors());
        let at = (random.next_u32() % 2) as usize;
        match random.next_u32() % 6 {
            0 | 1 => {
                hosts[at].kill()?;
                hosts[at] = start_host(at)?;
            }
            2 => {
                ends.kill()?;
                ends = start_ends()?;
            }
            3 => {
                hosts[at].freeze(true)?;
                thread::sleep(FREEZE);
                hosts[at].freeze(false)?;
            }
            4 => server.kill_and_restart(Duration::from_millis(u64::from(random.next_u32() % 1_000)))?,
            _ => {}
        }
        for (at, host) in hosts.iter_mut().enumerate() {
            if host.exit_code()?.is_some() {
                *host = start_host(at)?;
            }
        }
    }
    job.expected.check(&data)
}
