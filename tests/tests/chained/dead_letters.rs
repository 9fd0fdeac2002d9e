//! Records that cannot be used.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use tapeline::store::{Aside, DeadLetter, SqliteStore, Store as _};
use tapeline_tests::{
    cluster::NatsServer,
    listening::Listening,
    program::{self, run_arguments, run_with},
};
use tempfile::TempDir;

use super::job::{Job, Stored, bitcoin, wait_for};

/// Nothing leaves 7 when it is divided by 1.
const NEVER: u64 = 1;
const STAGES: &str = "fetch,dedup,faulty,enrich,aggregate,alarm,write";

/// The main job's pipeline with a stage that traps on every trade whose id leaves 7.
fn faulty_pipeline(every: u64) -> Result<String> {
    faulty_pipeline_before("enrich", every)
}

fn faulty_pipeline_before(next: &str, every: u64) -> Result<String> {
    let component = program::components().join("test/faulty.wasm").canonicalize()?;
    let stage = format!(
        "[[stages]]\nname = \"faulty\"\ncomponent = {component:?}\n[stages.settings]\nfault = \"trap\"\nevery = {every}\nremainder = 7\n\n[[stages]]\nname = \"{next}\""
    );
    Ok(bitcoin()?.replace(&format!("[[stages]]\nname = \"{next}\""), &stage))
}

fn dead_letters(data: &Path) -> Result<Vec<DeadLetter>> {
    Ok(SqliteStore::open_reader(data)?.dead_letters(0, 1_000)?)
}

/// Whether the stream has each letter once and in order, with what a watcher wants to know of it.
fn check_stream(server: &NatsServer, letters: &[DeadLetter]) -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let jetstream = jetstream::new(async_nats::connect(server.url()).await?);
        let mut stream = jetstream.get_stream("tapeline_faulty_dead_letters").await?;
        let count = stream.info().await?.state.messages;
        ensure!(count == letters.len() as u64, "{count} messages for {} letters", letters.len());
        for (at, letter) in (1..).zip(letters) {
            let message = stream.get_raw_message(at).await?;
            let header = |name: &str| message.headers.get(name).map(ToString::to_string).unwrap_or_default();
            ensure!(header("Tapeline-Letter") == letter.id.to_string(), "{} {letter:?}", header("Tapeline-Letter"));
            ensure!(header("Tapeline-Component") == letter.component, "{letter:?}");
            ensure!(!header("Tapeline-Reason").is_empty(), "{letter:?}");
            let body: serde_json::Value = serde_json::from_slice(&message.payload)?;
            ensure!(body["reason"] == letter.reason.as_str() && body["stage"] == letter.stage.as_str(), "{body}");
        }
        Ok(())
    })
}

fn redrive_all(data: &Path) -> Result<()> {
    let folder = data.to_str().context("a temporary folder has a name")?;
    program::output(&["dead-letters", "redrive", "--all", "--data", folder]).map(drop)
}

pub(super) fn a_record_that_traps_comes_back_once_its_stage_is_fixed() -> Result<()> {
    let folder = TempDir::new()?;
    let alone = folder.path().join("faulty.toml");
    fs::write(&alone, faulty_pipeline(1_000)?)?;
    let job = Job::new(5_000, &alone)?;
    let server = NatsServer::start(&job.data("nats"))?;
    let nats = "partitions = 2";
    let (pipeline, data) = (job.pipeline(&faulty_pipeline(1_000)?, "faulty", nats)?, job.data("chained"));
    job.run(&pipeline, &data, &server.url(), STAGES)?;
    job.expected.check(&data)?;
    let (dead, expected) = (dead_letters(&data)?, dead_letters(&job.data("expected"))?);
    ensure!(!dead.is_empty() && dead.len() == expected.len(), "{} dead letters, not {}", dead.len(), expected.len());
    for letter in &dead {
        ensure!(letter.stage == "faulty" && letter.reason.contains("is too much"), "{letter:?}");
        ensure!(letter.component.len() == 64, "{letter:?}");
    }

    check_stream(&server, &dead)?;

    // The stage is fixed: they come back, in one process and in the chain alike.
    fs::write(&alone, faulty_pipeline(NEVER)?)?;
    redrive_all(&job.data("expected"))?;
    let run = run_with(&run_arguments(&alone, &[], &job.data("expected")))?;
    ensure!(run.code == 0, "exit code {}: {}", run.code, run.errors);
    let expected = Stored::read(&job.data("expected"))?;
    let pipeline = job.pipeline(&faulty_pipeline(NEVER)?, "faulty", nats)?;
    redrive_all(&data)?;
    let mut arguments = run_arguments(&pipeline, &[], &data);
    arguments.extend(["--nats".into(), server.url().into()]);
    let run = run_with(&arguments)?;
    ensure!(run.code == 0, "exit code {}: {}", run.code, run.errors);
    expected.check(&data)?;
    // For the bars of a finished job they are late, which is no reason to refuse them again.
    let left = dead_letters(&data)?;
    let late = left.iter().filter(|letter| letter.aside == Aside::Late && letter.stage == "aggregate").count();
    ensure!(late == dead.len(), "{late} of {} are late", dead.len());
    check_stream(&server, &left)?;
    let again = left.iter().filter(|letter| letter.aside == Aside::Dead && !letter.is_redriven).count();
    ensure!(again == 0, "{again} letters were refused again");
    Ok(())
}

/// Trades of Bitcoin with these ids, a second apart.
fn trades(ids: std::ops::RangeInclusive<u64>) -> String {
    let line = |id| {
        format!(
            "{{\"kind\":\"trade\",\"symbol\":\"BTCUSDT\",\"source\":\"binance\",\"time\":\"2023-11-14T22:13:{}Z\",\"id\":{id},\"price\":1}}\n",
            20 + id
        )
    };
    ids.map(line).collect()
}

/// The stage that refuses stands behind the one that renames symbols: by its new name the trade belongs into the other
/// partition, where nobody knows its bar.
pub(super) fn a_dead_letter_is_redriven_into_a_running_chain() -> Result<()> {
    const TRADES: u64 = 20;
    let folder = TempDir::new()?;
    let (data, file) = (folder.path().join("data"), folder.path().join("pipeline.toml"));
    let server = NatsServer::start(&folder.path().join("nats"))?;
    let up = |every| -> Result<Listening> {
        let text = faulty_pipeline_before("aggregate", every)?;
        let text = text.replace("lateness = \"5s\"", "lateness = \"1h\"");
        fs::write(&file, text.replace("partitions = 1", "partitions = 2"))?;
        let mut up = Command::new(program::path());
        up.args(["up", "--no-source", "--listen", "127.0.0.1:0", "--nats", &server.url(), "--components"]);
        up.arg(program::components()).arg("--data").arg(&data).arg(&file);
        Listening::start(up.stdout(Stdio::piped()).stderr(Stdio::null()))
    };
    let send = |up: &Listening, trades: String| -> Result<()> {
        let url = format!("http://{}/pipelines/bitcoin-trades/events?format=events", up.address);
        let answer = ureq::post(&url).content_type("application/x-ndjson").send(trades)?;
        ensure!(answer.status() == 202, "{}", answer.status());
        Ok(())
    };
    let trades_written = || program::query(&data, &["trades"]).unwrap_or_default().len() as u64;
    let faulty = up(1_000)?;
    send(&faulty, trades(1..=TRADES))?;
    wait_for("all but one are written", || Ok(trades_written() == TRADES - 1))?;
    wait_for("one is dead", || Ok(dead_letters(&data).is_ok_and(|letters| letters.len() == 1)))?;
    drop(faulty);
    let fixed = up(NEVER)?;
    redrive_all(&data)?;
    wait_for("the one that was dead is written", || Ok(trades_written() == TRADES))?;
    send(&fixed, trades(TRADES + 1..=TRADES + 1))?;
    let counts = || -> Vec<String> {
        program::query(&data, &["bars"]).unwrap_or_default().into_iter().map(|bar| bar["count"].clone()).collect()
    };
    let is_whole = wait_for("one bar has all", || Ok(counts() == [(TRADES + 1).to_string()]));
    is_whole.with_context(|| format!("bars of {:?}", counts()))?;
    program::check_ledger(&data)
}
