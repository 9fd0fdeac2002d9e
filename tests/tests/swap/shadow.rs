//! A candidate that runs beside the live version: found out, and never seen.

use anyhow::{Context, Result, ensure};
use tapeline_tests::live::{LiveHost, component};

use super::job::{Job, NAME, ODD};

const TRADES: u64 = 60_000;

/// Brings a version of the odd stage in with other settings, which somebody has to approve.
pub(super) fn push_odd(host: &LiveHost, query: &str, settings: &str) -> Result<u64> {
    let settings = settings.replace(' ', "").replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
    let (status, answer) = host.push("odd", &format!("{query}&settings={settings}"), &component("test/faulty")?)?;
    ensure!(status == 201, "{status} {answer}");
    ensure!(answer["standing"] == "pending", "other settings are let in: {answer}");
    let version = answer["version"].as_u64().context("a version")?;
    let (status, answer) = host.post(&format!("/stages/odd/approve?version={version}"))?;
    ensure!(status == 200, "{status} {answer}");
    Ok(version)
}

/// Sends everything, in small pieces.
pub(super) fn send_all(host: &LiveHost, lines: &[&str]) -> Result<()> {
    for chunk in lines.chunks(500) {
        host.send(NAME, chunk)?;
    }
    host.wait_until_done()
}

#[test]
fn one_wrong_record_in_ten_thousand_is_found_and_reaches_nobody() -> Result<()> {
    let job = Job::new(ODD, TRADES)?;
    let host = job.start("shadow")?;
    let lines = job.lines();
    let (first, rest) = lines.split_at(2_000);
    send_all(&host, first)?;
    let wrong = r#"{"fault": "reject", "every": 10000, "remainder": 7}"#;
    let version = push_odd(&host, "mode=shadow&differences_max=0", wrong)?;
    host.wait_for("odd", "it is compared", |status| status["comparison"].is_object())?;
    send_all(&host, rest)?;
    let is_out = |status: &serde_json::Value| status["deployment"]["shadow"].is_null();
    let status = host.wait_for("odd", "it is thrown out", is_out)?;
    let last = status["deployment"]["log"].as_array().and_then(|log| log.last()).context("a log")?;
    ensure!(last["what"] == "thrown-out" && last["version"] == version, "{last}");
    ensure!(last["why"].as_str().is_some_and(|why| why.contains("differences; 0 are allowed")), "{last}");
    ensure!(status["deployment"]["live"] == 1, "{status}");
    let report = status["workers"].as_object().and_then(|workers| workers.values().next()).context("a worker")?;
    let difference = &report["comparison"]["first"][0];
    let record = difference["record"].as_str().context("the record")?;
    ensure!(record.contains("\"id\":10007,"), "{difference}");
    ensure!(difference["live"][0] == "goes on", "{difference}");
    let refused = difference["candidate"][0].as_str().unwrap_or_default();
    ensure!(refused.starts_with("refused: trade "), "{difference}");
    job.finish(host)
}

#[test]
fn differences_are_counted_by_symbol_until_somebody_decides() -> Result<()> {
    let job = Job::new(ODD, TRADES)?;
    let host = job.start("diff")?;
    let lines = job.lines();
    let (first, rest) = lines.split_at(1_000);
    send_all(&host, first)?;
    let version = push_odd(&host, "mode=shadow", r#"{"fault": "reject", "every": 1000, "remainder": 3}"#)?;
    host.wait_for("odd", "it is compared", |status| status["comparison"].is_object())?;
    send_all(&host, rest)?;
    let settled = |status: &serde_json::Value| status["comparison"]["differences"].as_u64() >= Some(30);
    let status = host.wait_for("odd", "differences are counted", settled)?;
    let comparison = &status["comparison"];
    let by_symbol: u64 =
        comparison["by_symbol"].as_object().context("symbols")?.values().filter_map(serde_json::Value::as_u64).sum();
    ensure!(Some(by_symbol) == comparison["differences"].as_u64(), "{comparison:#}");
    ensure!(comparison["first"].as_array().is_some_and(|first| first.len() == 20), "{comparison:#}");
    // As somebody at a prompt sees it.
    let data = host.data.to_str().context("a path of text")?;
    let diff = std::process::Command::new(tapeline_tests::program::path())
        .args(["stage", "diff", "odd", "--data", data])
        .output()?;
    let text = String::from_utf8_lossy(&diff.stdout);
    ensure!(diff.status.code() == Some(1) && text.contains("candidate refused: trade"), "{text}");
    let (status, answer) = host.post("/stages/odd/discard?why=enough")?;
    ensure!(status == 200 && answer["versions"][0] == version, "{status} {answer}");
    job.finish(host)
}

#[test]
fn a_candidate_without_differences_goes_live_by_rule() -> Result<()> {
    let job = Job::new(ODD, TRADES)?;
    let host = job.start("promoted")?;
    let lines = job.lines();
    let (first, rest) = lines.split_at(1_000);
    send_all(&host, first)?;
    // Other settings that come to the same.
    let same = r#"{"fault": "reject", "every": 2000000000000, "remainder": 0}"#;
    let version = push_odd(&host, "mode=shadow&differences_max=0&promote_after=5000", same)?;
    host.wait_for("odd", "it is compared", |status| status["comparison"].is_object())?;
    send_all(&host, rest)?;
    host.wait_until_live("odd", version)?;
    let status = host.status("odd")?;
    let log = status["deployment"]["log"].as_array().context("a log")?;
    ensure!(log.iter().any(|logged| logged["what"] == "promoted" && logged["version"] == version), "{log:#?}");
    job.finish(host)
}

#[test]
fn a_candidate_that_traps_or_loops_is_thrown_out() -> Result<()> {
    for (fault, said) in [("trap", "is too much"), ("loop", "longer than"), ("allocate", "memory")] {
        let job = Job::new(ODD, 8_000)?;
        let host = job.start(fault)?;
        let settings = format!(r#"{{"fault": "{fault}", "every": 2000, "remainder": 11}}"#);
        // Little memory, so that all of it is taken before the time of a call is over, on a busy machine too.
        push_odd(&host, "mode=shadow&memory_mib=32", &settings)?;
        host.wait_for("odd", "it is compared", |status| status["comparison"].is_object())?;
        send_all(&host, &job.lines())?;
        let status = host.wait_for("odd", "it is thrown out", |status| status["deployment"]["shadow"].is_null())?;
        let last = status["deployment"]["log"].as_array().and_then(|log| log.last()).context("a log")?;
        ensure!(last["why"].as_str().is_some_and(|why| why.contains(said)), "{fault}: {last}");
        job.finish(host)?;
    }
    Ok(())
}
