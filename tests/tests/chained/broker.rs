//! What a broker keeps, and what is noticed when it does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::{self, stream::Stream};
use futures_util::StreamExt as _;
use tapeline::{
    bus::{TRACEPARENT, TraceContext},
    store::{SqliteStore, Store as _},
};
use tapeline_tests::{
    cluster::{Host, NatsServer, free_port},
    listening::Listening,
    program::{self, run_arguments, run_with},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::job::{ALL, BETWEEN, Job, PATIENCE, bitcoin, wait_for};

/// Asks a server as anybody else's client does.
fn ask<T>(server: &NatsServer, question: impl AsyncFnOnce(jetstream::Context) -> Result<T>) -> Result<T> {
    Runtime::new()?.block_on(async {
        let client = async_nats::connect(server.url()).await?;
        question(jetstream::new(client)).await
    })
}

async fn stream(jetstream: &jetstream::Context, name: &str) -> Result<Stream> {
    Ok(jetstream.get_stream(name).await?)
}

fn bytes_of(server: &NatsServer, name: &str) -> Result<u64> {
    ask(server, async |jetstream| Ok(stream(&jetstream, name).await?.cached_info().state.bytes))
}

/// What `doctor` finds, by what it looked at: the verdict and the rest.
fn doctor(server: &NatsServer, pipeline: &Path) -> Result<(i32, Vec<serde_json::Value>)> {
    let mut doctor = Command::new(program::path());
    doctor.arg("doctor").arg(pipeline).args(["--nats", &server.url(), "--monitor", &server.monitor_url()]);
    let output = doctor.args(["--format", "json"]).output()?;
    let findings = serde_json::from_slice(&output.stdout);
    let findings = findings.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((output.status.code().unwrap_or(-1), findings))
}

fn wrong(findings: &[serde_json::Value]) -> Vec<String> {
    let is_wrong = |finding: &&serde_json::Value| finding["verdict"] == "wrong";
    findings.iter().filter(is_wrong).map(|finding| format!("{} {}", finding["check"], finding["found"])).collect()
}

pub(super) fn a_doctor_sees_what_somebody_has_changed() -> Result<()> {
    let job = Job::new(1_000, &program::bitcoin_pipeline())?;
    let configuration = job.data("nats.conf");
    fs::write(&configuration, "jetstream { sync_interval: always }\n")?;
    let configuration = configuration.to_str().context("a temporary folder has a name")?;
    let server = NatsServer::start_with(&job.data("nats"), free_port()?, &["--config", configuration])?;
    let pipeline = job.pipeline(&bitcoin()?, "doctor", "stream_mib = 64")?;
    job.run(&pipeline, &job.data("data"), &server.url(), ALL)?;
    let (code, findings) = doctor(&server, &pipeline)?;
    ensure!(code == 0 && wrong(&findings).is_empty(), "{code} {findings:?}");
    let verdict = |check: &str| {
        let found = findings.iter().find(|finding| finding["check"] == check);
        found.map_or_else(String::new, |finding| finding["verdict"].to_string())
    };
    for check in ["version", "jetstream", "max_payload", "storage", "sync_interval", "clock"] {
        ensure!(verdict(check) == "\"ok\"", "{check}: {findings:?}");
    }
    ensure!(verdict("replicas") == "\"warning\"", "{findings:?}");

    ask(&server, async |jetstream| {
        let mut config = stream(&jetstream, "tapeline_doctor_enrich").await?.cached_info().config.clone();
        config.max_age = Duration::from_secs(3_600);
        Ok(jetstream.update_stream(config).await.map(drop)?)
    })?;
    let (code, findings) = doctor(&server, &pipeline)?;
    let wrong_now = wrong(&findings);
    ensure!(code == 1 && wrong_now.len() == 1, "{code} {findings:?}");
    ensure!(wrong_now[0].contains("tapeline_doctor_enrich") && wrong_now[0].contains("max_age"), "{wrong_now:?}");
    // A chain that starts sets it right.
    job.run(&pipeline, &job.data("data"), &server.url(), ALL)?;
    let (code, findings) = doctor(&server, &pipeline)?;
    ensure!(code == 0, "{findings:?}");

    let unsafe_server = NatsServer::start(&job.data("unsafe"))?;
    let (code, findings) = doctor(&unsafe_server, &pipeline)?;
    ensure!(code == 1 && wrong(&findings)[0].contains("sync_interval"), "{findings:?}");
    Ok(())
}

/// Runs a job without anything to do.
fn make_streams(server: &NatsServer, pipeline: &Path, data: &Path) -> Result<()> {
    let mut arguments = run_arguments(pipeline, &[], data);
    arguments.extend(["--nats".into(), server.url().into()]);
    let run = run_with(&arguments)?;
    ensure!(run.code == 0, "exit code {}: {}", run.code, run.errors);
    Ok(())
}

pub(super) fn a_full_stream_slows_its_source_and_loses_nothing() -> Result<()> {
    const STREAM: &str = "tapeline_full_fetch";
    const FULL: u64 = 15 << 20;
    let job = Job::new(400_000, &program::bitcoin_pipeline())?;
    let server = NatsServer::start(&job.data("nats"))?;
    let pipeline = job.pipeline(&bitcoin()?, "full", "stream_mib = 16")?;
    let data = job.data("ends");
    make_streams(&server, &pipeline, &data)?;
    // What somebody else has put there, and nobody reads, leaves less room than the job takes.
    ask(&server, async |jetstream| {
        for _ in 0..13 {
            jetstream.publish("full.fetch.9", vec![0; 1_000_000].into()).await?.await?;
        }
        Ok(())
    })?;
    let mut ends = Host::spawn(&job.arguments(&pipeline, &data, &server.url(), "fetch,write"), &data)?;
    wait_for("the stream is full", || Ok(bytes_of(&server, STREAM).unwrap_or(0) > FULL))?;
    thread::sleep(Duration::from_secs(1));
    ensure!(ends.exit_code()?.is_none(), "it did not wait: {}", ends.errors());
    ensure!(bytes_of(&server, STREAM)? <= 16 << 20, "the stream has more than it may");
    let _host = Host::work(&pipeline, BETWEEN, &server.url(), &job.data("host"))?;
    let started = Instant::now();
    while ends.exit_code()?.is_none() {
        ensure!(started.elapsed() < PATIENCE, "it does not go on: {}", ends.errors());
        thread::sleep(Duration::from_millis(50));
    }
    job.expected.check(&data)
}

pub(super) fn a_message_that_the_broker_has_lost_is_noticed() -> Result<()> {
    let job = Job::new(100_000, &program::bitcoin_pipeline())?;
    let server = NatsServer::start(&job.data("nats"))?;
    let pipeline = job.pipeline(&bitcoin()?, "lost", "")?;
    let data = job.data("ends");
    let ends = Host::spawn(&job.arguments(&pipeline, &data, &server.url(), "fetch,write"), &data)?;
    // Everything has left the source, and nobody has read it.
    let messages = || {
        ask(&server, async |jetstream| {
            let info = stream(&jetstream, "tapeline_lost_fetch").await?.cached_info().state.clone();
            Ok((info.messages, info.first_sequence, info.last_sequence))
        })
    };
    wait_for("messages wait", || Ok(messages().is_ok_and(|(count, ..)| count > 10)))?;
    thread::sleep(Duration::from_secs(1));
    drop(ends);
    let deleted = ask(&server, async |jetstream| {
        let stream = stream(&jetstream, "tapeline_lost_fetch").await?;
        // The third message for the partition; positions have subjects of their own.
        let mut at = 1;
        for _ in 0..3 {
            at = stream.get_first_raw_message_by_subject("lost.fetch.0", at).await?.sequence + 1;
        }
        stream.delete_message(at - 1).await?;
        Ok(at - 1)
    })?;
    let mut host = Host::work(&pipeline, BETWEEN, &server.url(), &job.data("host"))?;
    let started = Instant::now();
    while host.exit_code()?.is_none() {
        ensure!(started.elapsed() < PATIENCE, "message {deleted} is not missed: {}", host.errors());
        thread::sleep(Duration::from_millis(50));
    }
    ensure!(host.errors().contains("the broker has lost a message"), "{}", host.errors());
    Ok(())
}

pub(super) fn tables_of_a_chain_that_the_broker_has_forgotten_are_refused() -> Result<()> {
    let job = Job::new(1_000, &program::bitcoin_pipeline())?;
    let pipeline = job.pipeline(&bitcoin()?, "forgotten", "")?;
    let data = job.data("data");
    let server = NatsServer::start(&job.data("nats"))?;
    job.run(&pipeline, &data, &server.url(), ALL)?;
    drop(server);
    let empty = NatsServer::start(&job.data("empty"))?;
    let run = run_with(&job.arguments(&pipeline, &data, &empty.url(), ALL))?;
    ensure!(run.code == 1 && run.errors.contains("the broker has lost what it stored"), "{} {}", run.code, run.errors);
    job.expected.check(&data)
}

pub(super) fn a_broker_that_cannot_hold_a_chain_is_refused() -> Result<()> {
    let job = Job::new(100, &program::bitcoin_pipeline())?;
    let configuration = job.data("nats.conf");
    fs::write(&configuration, "max_payload: 65536\n")?;
    let configuration = configuration.to_str().context("a temporary folder has a name")?;
    let server = NatsServer::start_with(&job.data("nats"), free_port()?, &["--config", configuration])?;
    let run = run_with(&job.arguments(&program::bitcoin_pipeline(), &job.data("data"), &server.url(), ALL))?;
    ensure!(run.code == 2 && run.errors.contains("max_payload is 65536"), "{} {}", run.code, run.errors);
    let roomy = NatsServer::start(&job.data("roomy"))?;
    let pipeline = job.pipeline(&bitcoin()?, "vast", "stream_mib = 16777216")?;
    let run = run_with(&job.arguments(&pipeline, &job.data("vast"), &roomy.url(), ALL))?;
    ensure!(run.code == 1 && run.errors.contains("lower nats.stream_mib"), "{} {}", run.code, run.errors);
    let nobody = format!("nats://user:secret@127.0.0.1:{}", free_port()?);
    let run = run_with(&job.arguments(&program::bitcoin_pipeline(), &job.data("data"), &nobody, ALL))?;
    ensure!(run.code == 1 && !run.errors.contains("secret"), "{} {}", run.code, run.errors);
    Ok(())
}

pub(super) fn a_local_server_that_is_killed_is_started_again() -> Result<()> {
    const TRADES: usize = 10;
    let folder = TempDir::new()?;
    let (data, pipeline) = (folder.path().join("data"), program::bitcoin_pipeline());
    let mut up = Command::new(program::path());
    up.args(["up", "--no-source", "--listen", "127.0.0.1:0", "--nats", "local", "--components"]);
    up.arg(program::components()).arg("--data").arg(&data).arg(&pipeline);
    let up = Listening::start(up.stdout(Stdio::piped()).stderr(Stdio::null()))?;
    let send = |first: usize| -> Result<()> {
        let line = |id: usize| {
            format!(
                "{{\"kind\":\"trade\",\"symbol\":\"A\",\"source\":\"s\",\"time\":\"2023-11-14T22:13:20.{id:03}Z\",\"id\":{id},\"price\":1}}\n"
            )
        };
        let lines: String = (first..first + TRADES).map(line).collect();
        let url = format!("http://{}/pipelines/bitcoin-trades/events?format=events", up.address);
        ensure!(ureq::post(&url).content_type("application/x-ndjson").send(lines)?.status() == 202, "not taken");
        Ok(())
    };
    let written = || program::query(&data, &["trades"]).unwrap_or_default().len();
    send(1)?;
    wait_for("the first are written", || Ok(written() == TRADES))?;
    let server = child_of(up.id(), "nats-server")?.context("a server of its own")?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(server), nix::sys::signal::Signal::SIGKILL)?;
    send(1 + TRADES)?;
    wait_for("those behind it are written", || Ok(written() == 2 * TRADES))?;
    let again = child_of(up.id(), "nats-server")?.context("another server")?;
    ensure!(again != server, "it is the same");
    up.stop()?;
    wait_for("its server stops with it", || Ok(!Path::new(&format!("/proc/{again}")).exists()))?;
    program::check_ledger(&data)
}

/// The process of this name that a process has started.
fn child_of(parent: u32, name: &str) -> Result<Option<i32>> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(process) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let has = |line: String| status.lines().any(|of| of == line);
        if has(format!("PPid:\t{parent}")) && has(format!("Name:\t{name}")) {
            return Ok(Some(process));
        }
    }
    Ok(None)
}

pub(super) fn a_trace_goes_on_over_the_hops() -> Result<()> {
    let job = Job::new(2_000, &program::bitcoin_pipeline())?;
    let server = NatsServer::start(&job.data("nats"))?;
    let pipeline = job.pipeline(&bitcoin()?, "traced", "partitions = 2")?;
    let mut traces: BTreeMap<String, BTreeSet<u128>> = BTreeMap::new();
    Runtime::new()?.block_on(async {
        let client = async_nats::connect(server.url()).await?;
        let mut passing = client.subscribe("traced.*.*").await?;
        client.flush().await?;
        tokio::task::block_in_place(|| job.run(&pipeline, &job.data("data"), &server.url(), ALL))?;
        while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(500), passing.next()).await {
            let header = message.headers.as_ref().and_then(|headers| headers.get(TRACEPARENT));
            let trace = header.and_then(|header| TraceContext::parse(header.as_str())).context("no trace")?;
            let stage = message.subject.split('.').nth(1).unwrap_or_default().to_owned();
            traces.entry(stage).or_default().insert(trace.trace);
        }
        Ok::<_, anyhow::Error>(())
    })?;
    let begun = traces.get("fetch").context("nothing of fetch")?;
    for stage in ["dedup", "enrich", "aggregate", "alarm"] {
        let of_stage = traces.get(stage).with_context(|| format!("nothing of {stage}"))?;
        ensure!(!of_stage.is_empty() && of_stage.is_subset(begun), "{stage} has traces of its own");
    }
    Ok(())
}

pub(super) fn a_hop_is_followed_as_text() -> Result<()> {
    let job = Job::new(20_000, &program::bitcoin_pipeline())?;
    let server = NatsServer::start(&job.data("nats"))?;
    let pipeline = job.pipeline(&bitcoin()?, "followed", "partitions = 2")?;
    let tail = |subject: &str, to: &Path| -> Result<_> {
        let mut tail = Command::new(program::path());
        tail.args(["tail", subject, "--format", "text", "--nats", &server.url()]);
        Ok(tail.stdout(fs::File::create(to)?).spawn()?)
    };
    let refused = run_with(&["tail", "followed.enrich", "--nats", &server.url()].map(Into::into))?;
    ensure!(refused.code == 2 && refused.errors.contains("find stream"), "{} {}", refused.code, refused.errors);
    make_streams(&server, &pipeline, &job.data("data"))?;
    let text = job.data("tail.txt");
    let mut follower = tail("followed.enrich", &text)?;
    let subscriptions = format!("{}/subsz?subs=1", server.monitor_url());
    wait_for("it follows", || {
        Ok(ureq::get(&subscriptions).call()?.body_mut().read_to_string()?.contains("\"followed.enrich.*\""))
    })?;
    job.run(&pipeline, &job.data("data"), &server.url(), ALL)?;
    let written = SqliteStore::open_reader(&job.data("data"))?.ledger()?;
    let enriched: u64 = written.iter().filter(|(key, _)| key.stage == "enrich").map(|(_, counts)| counts.out).sum();
    let lines = || fs::read_to_string(&text).unwrap_or_default();
    let all = wait_for("all is shown", || Ok(lines().lines().count() as u64 == enriched));
    follower.kill()?;
    follower.wait()?;
    all.with_context(|| format!("{} lines of {enriched}", lines().lines().count()))?;
    let text = lines();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        ensure!(fields.len() == 4 && fields[0].ends_with('Z') && fields[1].starts_with("followed.enrich."), "{line}");
        ensure!(fields[3].contains(&format!("\"symbol\":\"{}\"", fields[2])), "{line}");
    }
    Ok(())
}
