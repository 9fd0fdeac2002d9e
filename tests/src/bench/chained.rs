//! A pipeline chained by a broker: its speed against the broker's own, its latency, and what an idle host takes.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::{self, consumer::pull, stream};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tapeline::store::{SqliteStore, Store as _};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    cluster::{Host, NatsServer},
    listening::Listening,
    program,
};

/// Hops between the six stages of the main job.
const HOPS: usize = 5;
/// Trades a second while the latency is measured, and for how long.
const RATE: u64 = 1_000;
const LATENCY_SECONDS: u64 = 10;
/// Trades of a request.
const REQUEST: u64 = 10;
/// How long an idle host is watched.
const IDLE: Duration = Duration::from_secs(10);
/// Messages that a publisher sends ahead of their acknowledgements.
const AHEAD: usize = 16;

/// What was measured.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Chained {
    /// Events a second through all stages, all of them in one process.
    pub events_per_second: f64,
    /// CPU seconds of the program and of the broker.
    pub program_cpu_seconds: f64,
    /// CPU seconds of the broker.
    pub broker_cpu_seconds: f64,
    /// Messages and bytes that the broker was given.
    pub messages: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What the same broker does with as many messages and bytes over as many streams, and nothing in between.
    pub broker_events_per_second: f64,
}

/// How long it takes from a request to the rows of its trades.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Latency {
    /// Half of them are faster.
    pub p50_ms: f64,
    /// One of a hundred is slower.
    pub p99_ms: f64,
}

/// What a host takes that has nothing to do.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Idle {
    /// Of one core.
    pub cpu_percent: f64,
    /// Resident memory.
    pub mib: f64,
}

/// Runs a market through a chain on a broker of its own, and as many bytes through that broker alone.
///
/// # Errors
/// When something does not run.
pub fn throughput(pipeline: &Path, market: &Path, events: u64) -> Result<Chained> {
    let folder = TempDir::new()?;
    let server = NatsServer::start(&folder.path().join("nats"))?;
    let data = folder.path().join("data");
    let before = (cpu_seconds(server.id())?, traffic(&server)?);
    let mut arguments = program::run_arguments(pipeline, &[market], &data);
    arguments.extend(["--nats".into(), server.url().into()]);
    let own_before = crate::bench::children_cpu_seconds()?;
    let started = Instant::now();
    let run = program::run_with(&arguments)?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(run.code == 0, "exit code {}: {}", run.code, run.errors);
    let program_cpu_seconds = crate::bench::children_cpu_seconds()? - own_before;
    let after = (cpu_seconds(server.id())?, traffic(&server)?);
    let (messages, bytes) = (after.1.0 - before.1.0, after.1.1 - before.1.1);
    let broker = Runtime::new()?.block_on(broker_alone(&server, messages / HOPS as u64, bytes / messages.max(1)))?;
    Ok(Chained {
        events_per_second: events as f64 / seconds,
        program_cpu_seconds,
        broker_cpu_seconds: after.0 - before.0,
        messages,
        bytes,
        broker_events_per_second: events as f64 / broker.as_secs_f64(),
    })
}

/// Publishes messages to as many streams as there are hops, reads and acknowledges them. How long that takes.
async fn broker_alone(server: &NatsServer, messages: u64, bytes: u64) -> Result<Duration> {
    let started = Instant::now();
    let hops = (0..HOPS).map(|hop| tokio::spawn(one_hop(server.url(), hop, messages, bytes)));
    for hop in hops.collect::<Vec<_>>() {
        hop.await??;
    }
    Ok(started.elapsed())
}

async fn one_hop(url: String, hop: usize, messages: u64, bytes: u64) -> Result<()> {
    let jetstream = jetstream::new(async_nats::connect(&url).await?);
    let subject = format!("alone.{hop}");
    let config = stream::Config {
        name: format!("alone-{hop}"),
        subjects: vec![subject.clone()],
        retention: stream::RetentionPolicy::WorkQueue,
        storage: stream::StorageType::File,
        ..stream::Config::default()
    };
    let stream = jetstream.create_stream(config).await?;
    let consumer: jetstream::consumer::PullConsumer =
        stream.create_consumer(pull::Config { durable_name: Some("reader".to_owned()), ..Default::default() }).await?;
    let writing = tokio::spawn(async move {
        // Nothing that compresses, as what is sent in earnest is compressed.
        let payload: Vec<u8> = (0..bytes).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        let payload = bytes::Bytes::from(payload);
        let mut ahead = std::collections::VecDeque::new();
        for _ in 0..messages {
            if ahead.len() >= AHEAD
                && let Some(first) = ahead.pop_front()
            {
                IntoFuture::into_future(first).await?;
            }
            ahead.push_back(jetstream.publish(subject.clone(), payload.clone()).await?);
        }
        for answer in ahead {
            answer.await?;
        }
        Ok::<(), anyhow::Error>(())
    });
    let mut read = consumer.messages().await?.take(usize::try_from(messages)?);
    while let Some(message) = read.next().await {
        message?.double_ack().await.map_err(anyhow::Error::from_boxed)?;
    }
    writing.await?
}

/// Sends trades at a steady rate to a live chain, and looks when they are written.
///
/// # Errors
/// When something does not run.
pub fn latency(pipeline: &Path) -> Result<Latency> {
    let folder = TempDir::new()?;
    let server = NatsServer::start(&folder.path().join("nats"))?;
    let data = folder.path().join("data");
    let mut up = Command::new(program::path());
    up.args(["up", "--no-source", "--listen", "127.0.0.1:0", "--nats", &server.url(), "--components"]);
    up.arg(program::components()).arg("--data").arg(&data).arg(pipeline);
    let up = Listening::start(up.stdout(Stdio::piped()).stderr(Stdio::null()))?;
    let url = format!("http://{}/pipelines/bitcoin-trades/events?format=binance", up.address);
    let store = SqliteStore::open_reader(&data)?;
    let written = || -> Result<u64> {
        Ok(store.ledger()?.iter().filter(|(key, _)| key.stage == "dedup").map(|(_, counts)| counts.entered).sum())
    };
    let requests = RATE * LATENCY_SECONDS / REQUEST;
    let sending = thread::spawn(move || -> Result<Vec<Instant>> {
        let agent = ureq::Agent::new_with_defaults();
        let started = Instant::now();
        let mut sent = Vec::new();
        for request in 0..requests {
            let due = Duration::from_secs_f64((request * REQUEST) as f64 / RATE as f64);
            thread::sleep(due.saturating_sub(started.elapsed()));
            sent.push(Instant::now());
            let answer = agent.post(&url).content_type("application/x-ndjson").send(trades(request))?;
            ensure!(answer.status() == 202, "{}", answer.status());
        }
        Ok(sent)
    });
    let mut seen = Vec::new();
    let started = Instant::now();
    while (seen.len() as u64) < requests {
        let done = written()? / REQUEST;
        let now = Instant::now();
        seen.resize(usize::try_from(done)?.max(seen.len()), now);
        ensure!(started.elapsed() < Duration::from_secs(3 * LATENCY_SECONDS), "{} of {requests} written", seen.len());
        thread::sleep(Duration::from_micros(500));
    }
    let sent = sending.join().ok().context("the sender ended")??;
    let mut took: Vec<f64> = seen.iter().zip(&sent).map(|(seen, sent)| (*seen - *sent).as_secs_f64() * 1e3).collect();
    // The first second compiles and connects what is used for the first time.
    took.drain(..usize::try_from(RATE / REQUEST)?);
    took.sort_by(f64::total_cmp);
    let quantile = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    Ok(Latency { p50_ms: quantile(0.5), p99_ms: quantile(0.99) })
}

fn trades(request: u64) -> String {
    let line = |id| {
        format!(
            "{{\"stream\":\"btcusdt@trade\",\"data\":{{\"e\":\"trade\",\"E\":0,\"s\":\"BTCUSDT\",\"t\":{id},\"p\":\"1.5\",\"q\":\"1\",\"T\":{},\"m\":true,\"M\":true}}}}\n",
            1_700_000_000_000 + id
        )
    };
    (request * REQUEST..(request + 1) * REQUEST).map(line).collect()
}

/// Watches a host for the stages between the ends that has nothing to do.
///
/// # Errors
/// When something does not run.
pub fn idle(pipeline: &Path) -> Result<Idle> {
    let folder = TempDir::new()?;
    let server = NatsServer::start(&folder.path().join("nats"))?;
    let host = Host::work(pipeline, "dedup,enrich,aggregate,alarm", &server.url(), &folder.path().join("host"))?;
    thread::sleep(Duration::from_secs(3));
    let before = cpu_seconds(host.id())?;
    thread::sleep(IDLE);
    let cpu_percent = (cpu_seconds(host.id())? - before) / IDLE.as_secs_f64() * 100.0;
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.id()))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: f64 = resident.trim().trim_end_matches(" kB").parse()?;
    Ok(Idle { cpu_percent, mib: kib / 1024.0 })
}

/// CPU time of a process, its children not counted.
fn cpu_seconds(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("a process has a name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100) as f64;
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((field(11) + field(12)) / ticks)
}

/// Messages and bytes that a broker has been given.
fn traffic(server: &NatsServer) -> Result<(u64, u64)> {
    let text = ureq::get(format!("{}/varz", server.monitor_url())).call()?.body_mut().read_to_string()?;
    let varz: serde_json::Value = serde_json::from_str(&text)?;
    let number = |name: &str| varz[name].as_u64().with_context(|| name.to_owned());
    Ok((number("in_msgs")?, number("in_bytes")?))
}
