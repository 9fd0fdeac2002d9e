//! A chain stores what one process stores.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tapeline_tests::{
    cluster::{Host, NatsServer},
    listening::Listening,
    program,
};
use tempfile::TempDir;

use super::job::{ALL, BETWEEN, Job, PATIENCE, bitcoin};

pub(super) fn one_host_stores_what_one_process_stores() -> Result<()> {
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

pub(super) fn three_hosts_store_what_one_process_stores() -> Result<()> {
    let job = Job::new(20_000, &program::bitcoin_pipeline())?;
    let server = NatsServer::start(&job.data("nats"))?;
    let pipeline = job.pipeline(&bitcoin()?, "three", "partitions = 3")?;
    let host = |name: &str, stages| Host::work(&pipeline, stages, &server.url(), &job.data(name));
    let _hosts = [host("first", BETWEEN)?, host("second", "dedup,alarm")?];
    // The host with both ends runs nothing between them.
    job.run(&pipeline, &job.data("ends"), &server.url(), "fetch,write")?;
    job.expected.check(&job.data("ends"))
}

pub(super) fn a_live_chain_goes_on_where_it_was_killed() -> Result<()> {
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

pub(super) fn standard_input_goes_through_a_chain() -> Result<()> {
    let job = Job::new(5_000, &program::bitcoin_pipeline())?;
    let server = NatsServer::start(&job.data("nats"))?;
    let (pipeline, data) = (job.pipeline(&bitcoin()?, "stdin", "")?, job.data("stdin"));
    let mut run = Command::new(program::path());
    run.args(program::run_arguments(&pipeline, &[Path::new("-")], &data)).args(["--nats", &server.url()]);
    let output = run.stdin(fs::File::open(&job.market)?).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    job.expected.check(&data)
}
