//! Who works on a partition.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tapeline_tests::{
    cluster::{Host, NatsServer},
    listening::Listening,
    program,
};

use super::job::{BETWEEN, Job, PATIENCE, bitcoin, wait_for, written};

/// Starts a host for the stages between the ends.
fn start_host(pipeline: &Path, server: &NatsServer) -> Result<Listening> {
    let mut up = Command::new(program::path());
    up.args(["up", "--nats", &server.url(), "--stages", BETWEEN, "--components"]).arg(program::components());
    Listening::start(up.arg(pipeline).stdout(Stdio::piped()).stderr(Stdio::null()))
}

fn metrics(host: &Listening) -> Result<String> {
    Ok(ureq::get(format!("http://{}/metrics", host.address)).call()?.body_mut().read_to_string()?)
}

/// Stages that a host has been given events of.
fn stages_with_events(host: &Listening) -> Result<usize> {
    let has_events = |line: &&str| line.starts_with("tapeline_partition_events_in_total{") && !line.ends_with(" 0");
    Ok(metrics(host)?.lines().filter(has_events).count())
}

pub(super) fn a_standby_takes_over_within_five_seconds() -> Result<()> {
    const TAKEOVER_MAX: Duration = Duration::from_secs(5);
    const STAGES: usize = 4;
    let job = Job::new(600_000, &program::bitcoin_pipeline())?;
    let server = NatsServer::start(&job.data("nats"))?;
    let pipeline = job.pipeline(&bitcoin()?, "takeover", "")?;
    let data = job.data("ends");
    let (killed, standby) = (start_host(&pipeline, &server)?, start_host(&pipeline, &server)?);
    let half = |host: &Listening| owned(host).is_ok_and(|owned| owned.len() == STAGES / 2);
    wait_for("each has half of the stages", || Ok(half(&killed) && half(&standby)))?;
    let mut ends = Host::spawn(&job.arguments(&pipeline, &data, &server.url(), "fetch,write"), &data)?;
    wait_for("something is written", || Ok(written(&data) > 0))?;
    // With -9.
    drop(killed);
    let since = Instant::now();
    while stages_with_events(&standby)? < STAGES {
        ensure!(since.elapsed() < TAKEOVER_MAX, "no takeover: {} stages", stages_with_events(&standby)?);
        ensure!(ends.exit_code()?.is_none(), "the job was over before its host was killed");
        thread::sleep(Duration::from_millis(10));
    }
    wait_for("the job ends", || Ok(written(&data) == written(&job.data("expected"))))?;
    let started = Instant::now();
    while ends.exit_code()?.is_none() {
        ensure!(started.elapsed() < PATIENCE, "it does not end: {}", ends.errors());
        thread::sleep(Duration::from_millis(20));
    }
    job.expected.check(&data)
}

/// Partitions of each stage that a host works on.
fn owned(host: &Listening) -> Result<Vec<(String, u32)>> {
    let metrics = metrics(host)?;
    let mut owned = Vec::new();
    for line in metrics.lines().filter(|line| line.starts_with("tapeline_partition_owned{") && line.ends_with(" 1")) {
        let mut quoted = line.split('"').skip(1).step_by(2);
        let (Some(stage), Some(partition)) = (quoted.next(), quoted.next()) else { continue };
        owned.push((stage.to_owned(), partition.parse()?));
    }
    Ok(owned)
}

pub(super) fn hosts_share_the_partitions_evenly() -> Result<()> {
    const PARTITIONS: usize = 4;
    const STAGES: usize = 4;
    let job = Job::new(1_000, &program::bitcoin_pipeline())?;
    let server = NatsServer::start(&job.data("nats"))?;
    let pipeline = job.pipeline(&bitcoin()?, "shared", &format!("partitions = {PARTITIONS}"))?;
    let start = || start_host(&pipeline, &server);
    let has = |host: &Listening, count: usize| owned(host).is_ok_and(|owned| owned.len() == count);
    let first = start()?;
    wait_for("one host has all", || Ok(has(&first, PARTITIONS * STAGES)))?;
    let second = start()?;
    let half = PARTITIONS * STAGES / 2;
    wait_for("two hosts have half each", || Ok(has(&first, half) && has(&second, half)))?;
    for stage in BETWEEN.split(',') {
        let of_stage = owned(&first)?.into_iter().filter(|(of, _)| of == stage).count();
        ensure!(of_stage == PARTITIONS / 2, "{of_stage} partitions of {stage}");
    }
    let third = start()?;
    let fair = |host: &Listening| owned(host).is_ok_and(|owned| (STAGES..=2 * STAGES).contains(&owned.len()));
    let total = |hosts: [&Listening; 3]| hosts.into_iter().map(|host| owned(host).map_or(0, |owned| owned.len())).sum();
    wait_for("three share", || {
        let all: usize = total([&first, &second, &third]);
        Ok(all == PARTITIONS * STAGES && fair(&first) && fair(&second) && fair(&third))
    })?;
    drop((second, third));
    wait_for("one host has all again", || Ok(has(&first, PARTITIONS * STAGES)))?;
    // What was moved about is worked on.
    job.run(&pipeline, &job.data("ends"), &server.url(), "fetch,write")?;
    job.expected.check(&job.data("ends"))?;
    let metrics = metrics(&first)?;
    let sum = |name: &str| -> u64 {
        let of_name = metrics.lines().filter(|line| line.starts_with(&format!("tapeline_partition_{name}")));
        of_name.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    };
    for name in
        ["events_in_total", "events_out_total", "commit_duration_seconds_count", "receipt_to_commit_seconds_count"]
    {
        ensure!(sum(name) > 0, "no {name} in\n{metrics}");
    }
    first.stop()
}
