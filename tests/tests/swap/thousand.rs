//! A thousand swaps under load.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tapeline_tests::live::{component, variant};

use super::job::{Job, MAIN, NAME, STAGES};

const SWAPS: u64 = 1_000;
const TRADES: u64 = 120_000;
/// What is sent at once.
const CHUNK: usize = 100;

#[test]
fn a_thousand_swaps_under_load_change_nothing() -> Result<()> {
    let job = Job::new(MAIN, TRADES)?;
    let host = job.start("swapped")?;
    let lines = job.lines();
    let done = AtomicU64::new(0);
    thread::scope(|scope| -> Result<()> {
        // As much as there have been swaps, so that none is without load.
        let sender = scope.spawn(|| -> Result<()> {
            for (at, chunk) in lines.chunks(CHUNK).enumerate() {
                while ((at * CHUNK) as u64) * SWAPS > (done.load(Ordering::Acquire) + 5) * lines.len() as u64 {
                    thread::sleep(Duration::from_millis(1));
                }
                host.send(NAME, chunk)?;
            }
            Ok(())
        });
        let swapped = || -> Result<()> {
            let pairs = STAGES.map(|stage| component(stage).map(|bytes| (stage, [variant(&bytes, "two"), bytes])));
            let pairs = pairs.into_iter().collect::<Result<Vec<_>>>()?;
            for at in 0..SWAPS {
                let (stage, versions) = &pairs[at as usize % pairs.len()];
                let round = at as usize / pairs.len();
                // Two ways to bring a version in: with one standing by, and without.
                let version = if round < 2 || round % 4 < 2 {
                    host.push_version(stage, "", &versions[round % 2])?
                } else {
                    let wanted = 2 - (round as u64 % 2);
                    let (status, answer) = host.post(&format!("/stages/{stage}/rollback?version={wanted}"))?;
                    ensure!(status == 200, "{status} {answer}");
                    answer["version"].as_u64().context("a version")?
                };
                host.wait_until_live(stage, version)?;
                done.store(at + 1, Ordering::Release);
            }
            Ok(())
        };
        let swapped = swapped();
        done.store(SWAPS, Ordering::Release);
        sender.join().expect("the sender does not panic")?;
        swapped
    })?;
    host.wait_until_done()?;
    let metrics = host.get("/metrics")?.1;
    let metrics = metrics.as_str().context("text")?;
    let count = |name: &str| -> f64 {
        let of_name = metrics.lines().filter(|line| line.starts_with(name));
        of_name.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    ensure!(count("tapeline_swaps_total{") as u64 == SWAPS, "{} swaps", count("tapeline_swaps_total{"));
    ensure!(count("tapeline_rollbacks_total{") == 0.0, "a version was taken back:\n{}", host.errors());
    job.finish(host)
}
