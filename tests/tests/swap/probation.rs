//! A new version that fails: the one before it goes on, and nothing is lost.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tapeline_tests::live::component;

use super::{
    job::{Job, ODD},
    shadow::{push_odd, send_all},
};

const TRADES: u64 = 20_000;

fn last_rollback(status: &Value) -> Option<&Value> {
    status["deployment"]["log"].as_array()?.iter().rev().find(|logged| logged["what"] == "rolled-back")
}

/// Brings a version in that fails in the middle of the market, and checks that it was taken back and left no trace.
fn fails(fault: &str, every: u64, said: &str) -> Result<()> {
    let job = Job::new(ODD, TRADES)?;
    let host = job.start("failing")?;
    let lines = job.lines();
    let (first, rest) = lines.split_at(lines.len() / 3);
    send_all(&host, first)?;
    let settings = format!(r#"{{"fault": "{fault}", "every": {every}, "remainder": 11}}"#);
    let version = push_odd(&host, "", &settings)?;
    host.wait_until_live("odd", version)?;
    send_all(&host, rest)?;
    let status = host.wait_for("odd", "it is taken back", |status| last_rollback(status).is_some())?;
    let taken_back = last_rollback(&status).context("it is in the log")?;
    ensure!(taken_back["version"] == version && taken_back["by"] == "tapeline", "{taken_back}");
    ensure!(taken_back["why"].as_str().is_some_and(|why| why.contains(said)), "{fault}: {taken_back}");
    host.wait_until_live("odd", 1)?;
    job.finish(host)
}

#[test]
fn a_version_that_traps_is_taken_back() -> Result<()> {
    fails("trap", 5_001, "is too much")
}

#[test]
fn a_version_that_loops_is_taken_back() -> Result<()> {
    fails("loop", 5_001, "longer than")
}

#[test]
fn a_version_that_eats_memory_is_taken_back() -> Result<()> {
    fails("allocate", 5_001, "memory")
}

#[test]
fn a_version_that_refuses_too_much_is_taken_back() -> Result<()> {
    fails("reject", 5_001, "refuses records")
}

#[test]
fn a_version_that_cannot_say_its_state_is_taken_back() -> Result<()> {
    let job = Job::new(ODD, 9_000)?;
    let host = job.start("secretive")?;
    let lines = job.lines();
    let (first, rest) = lines.split_at(lines.len() / 3);
    send_all(&host, first)?;
    let settings = r#"{"fault": "reject", "every": 1000000000000, "remainder": 0, "at_checkpoint": true}"#;
    let version = push_odd(&host, "", settings)?;
    for chunk in rest.chunks(200) {
        host.send(super::job::NAME, chunk)?;
    }
    let status = host.wait_for("odd", "it is taken back", |status| last_rollback(status).is_some())?;
    let taken_back = last_rollback(&status).context("it is in the log")?;
    ensure!(taken_back["version"] == version, "{taken_back}");
    ensure!(taken_back["why"].as_str().is_some_and(|why| why.contains("is a secret")), "{taken_back}");
    host.wait_until_done()?;
    job.finish(host)
}

#[test]
fn a_writer_whose_rows_fit_no_table_is_taken_back() -> Result<()> {
    let job = Job::new(ODD, 9_000)?;
    let host = job.start("misfit")?;
    let lines = job.lines();
    let (first, rest) = lines.split_at(lines.len() / 3);
    send_all(&host, first)?;
    let (status, answer) = host.push("write", "", &component("test/misfit")?)?;
    ensure!(status == 201, "{status} {answer}");
    for chunk in rest.chunks(200) {
        host.send(super::job::NAME, chunk)?;
    }
    let status = host.wait_for("write", "it is taken back", |status| last_rollback(status).is_some())?;
    let taken_back = last_rollback(&status).context("it is in the log")?;
    ensure!(taken_back["why"].as_str().is_some_and(|why| why.contains("trades")), "{taken_back}");
    host.wait_until_done()?;
    job.finish(host)
}

#[test]
fn what_is_pushed_during_a_probation_falls_back_to_the_one_that_is_proven() -> Result<()> {
    let job = Job::new(ODD, TRADES)?;
    let host = job.start("thrice")?;
    let lines = job.lines();
    let (first, rest) = lines.split_at(lines.len() / 3);
    let (second, third) = rest.split_at(500);
    send_all(&host, first)?;
    let unproven = host.push_version("odd", "", &component("test/migrating")?)?;
    host.wait_until_live("odd", unproven)?;
    send_all(&host, second)?;
    // It fails, and the one before it has never proven itself: its state could not be read by the first.
    let also = tapeline_tests::live::variant(&component("test/migrating")?, "traps-at-the-host");
    let also = host.push_version("odd", "", &also)?;
    host.wait_until_live("odd", also)?;
    let (status, answer) = host.post("/stages/odd/rollback")?;
    ensure!(status == 200 && answer["version"] == 1, "{status} {answer}");
    host.wait_until_live("odd", 1)?;
    send_all(&host, third)?;
    job.finish(host)
}

#[test]
fn a_swap_is_not_forgotten_when_another_stage_fails_meanwhile() -> Result<()> {
    let bad = r#"
[[stages]]
name = "bad"
component = "COMPONENTS/test/faulty.wasm"
[stages.settings]
fault = "trap"
every = 40
remainder = 3
[[stages]]
name = "write""#;
    let job = Job::new(&ODD.replace("\n[[stages]]\nname = \"write\"", bad), 6_000)?;
    let host = job.start("disturbed")?;
    let bytes = component("test/faulty")?;
    for (at, chunk) in job.lines().chunks(300).enumerate() {
        let version = host.push_version("odd", "", &tapeline_tests::live::variant(&bytes, &format!("v{at}")))?;
        host.send(super::job::NAME, chunk)?;
        host.wait_until_live("odd", version)?;
    }
    host.wait_until_done()?;
    job.finish_but_for_dead_letters(host)
}

#[test]
fn state_goes_with_a_version_and_does_not_come_back_from_a_newer_one() -> Result<()> {
    let job = Job::new(ODD, TRADES)?;
    let host = job.start("migrating")?;
    let lines = job.lines();
    let (first, rest) = lines.split_at(lines.len() / 3);
    send_all(&host, first)?;
    let version = host.push_version("odd", "why=another%20form%20of%20state", &component("test/migrating")?)?;
    host.wait_until_live("odd", version)?;
    send_all(&host, rest)?;
    host.wait_for("odd", "it has proven itself", |status| status["deployment"]["before"].is_null())?;
    // What it has written the one before it cannot read: refused, and nothing changes.
    for path in ["/stages/odd/rollback", "/stages/odd/rollback?version=1"] {
        let (status, answer) = host.post(path)?;
        ensure!(status == 422, "{status} {answer}");
        let detail = answer["detail"].as_str().unwrap_or_default();
        ensure!(detail.contains("version 2 at most") && detail.contains("cannot migrate version 2"), "{detail}");
    }
    let (status, answer) = host.push("odd", "", &component("test/faulty")?)?;
    ensure!(status == 422, "{status} {answer}");
    host.wait_until_live("odd", version)?;
    job.finish(host)
}

#[test]
fn a_failing_migration_leaves_the_old_state() -> Result<()> {
    // It goes live with its own form of state, and is taken back by hand before it has proven itself.
    let job = Job::new(ODD, TRADES)?;
    let host = job.start("taken-back")?;
    let lines = job.lines();
    let (first, rest) = lines.split_at(lines.len() / 3);
    let (second, third) = rest.split_at(rest.len() / 4);
    send_all(&host, first)?;
    let version = host.push_version("odd", "", &component("test/migrating")?)?;
    host.wait_until_live("odd", version)?;
    send_all(&host, second)?;
    let (status, answer) = host.post("/stages/odd/rollback")?;
    ensure!(status == 200 && answer["version"] == 1, "{status} {answer}");
    host.wait_until_live("odd", 1)?;
    send_all(&host, third)?;
    job.finish(host)
}
