//! Components are pushed while data flows, without a deployment.

use std::{fs, path::Path, sync::Arc, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tapeline_aws_tests::{
    components::{Compiled, package_with},
    stack::{Account, Stack},
    stored,
};
use tapeline_harness::program;
use tempfile::TempDir;

use crate::{market::Market, operate::listed};

/// Each stage between the ends drops every thousandth trade of a symbol, so that one that is lost or comes twice is found
/// out. `odd` cannot take the trades 1500, unless it runs `migrating`, which takes all; `even` does that as it is deployed,
/// and would not take the trades 700 otherwise.
const PIPELINE: &str = r#"
name = "swaps"
[source]
format = "binance"
[watermark]
delay = "2s"
[[stages]]
name = "fetch"
[[stages]]
name = "odd"
component = "faulty"
time_per_batch = "1s"
[stages.settings]
fault = "trap"
every = 1000000000000
remainder = 1500
[[stages]]
name = "even"
component = "migrating"
time_per_batch = "1s"
[stages.settings]
fault = "trap"
every = 1000000000000
remainder = 700
[[stages]]
name = "write"
[stages.settings]
tables = ["trades"]
objects = []
"#;
/// Trades of a symbol that does not come again: what one version stores of a symbol the one before it cannot read.
const BEFORE: u64 = 20;
/// Some 2000 of each symbol.
const TRADES: u64 = 6_000;
/// A function looks once in a second.
const NOTICED: Duration = Duration::from_millis(1_100);
/// Lines sent at once, so that there are many batches.
const LINES: usize = 500;

pub(crate) fn a_component_that_is_pushed_takes_effect_and_one_that_traps_is_taken_back(
    account: &Arc<Account>,
) -> Result<()> {
    let folder = TempDir::new()?;
    let market = Market::new(folder.path(), &[(BEFORE, "ADAUSDT"), (TRADES, "BTCUSDT,ETHUSDT,SOLUSDT")])?;
    let expected = expected(folder.path(), &market)?;
    let pipeline = folder.path().join("pipeline.toml");
    fs::write(&pipeline, PIPELINE)?;
    let package = package_with(folder.path(), &["test/faulty", "test/migrating"])?;
    let stack = Stack::deploy(account, &pipeline, &package, &["authorization=token"])?;

    let lines = market.lines();
    let (before, lines) = lines.split_at(lines.partition_point(|line| line.contains("adausdt")));
    let (first, second) = lines.split_at(lines.len() / 2);
    // By the version that will be back: it must have run.
    stack.send("swaps", "binance", before)?;
    stack.wait_until_done()?;
    let (faulty, migrating) = (Compiled::new("test/faulty")?, Compiled::new("test/migrating")?);
    faulty.push(&stack, "even")?;
    thread::sleep(NOTICED);
    first.chunks(LINES).try_for_each(|lines| stack.send("swaps", "binance", lines))?;
    migrating.push(&stack, "odd")?;
    thread::sleep(NOTICED);
    second.chunks(LINES).try_for_each(|lines| stack.send("swaps", "binance", lines))?;
    stack.end()?;
    stack.wait_until_done()?;

    for (stage, refused) in [("odd", None), ("even", Some(faulty.digest()))] {
        let runs = stored::position(&stack, "swaps", stage)?.runs.remove(stage).context("what runs")?;
        ensure!(runs.digest == migrating.digest() && runs.refused.as_deref() == refused, "{stage}: {runs:?}");
        let (listed, refused) = (listed(&stack, stage)?, refused.into_iter().collect::<Vec<_>>());
        let told = listed["taken_back"].as_array().context("what was taken back")?;
        let told: Vec<&str> = told.iter().filter_map(|told| told["digest"].as_str()).collect();
        ensure!(told == refused, "{listed}");
    }
    let dead = stored::dead_letters(&stack)?;
    ensure!(dead.is_empty(), "{} dead letters, such as {:?}", dead.len(), dead.first());
    stored::compare(&expected, &stored::tables(&stack)?)
}

/// What one process stores when no trade is refused.
fn expected(folder: &Path, market: &Market) -> Result<stored::Tables> {
    let pipeline = folder.join("expected.toml");
    let component = program::components().join("test/migrating.wasm");
    let text = PIPELINE.replace("\"faulty\"", "\"migrating\"");
    fs::write(&pipeline, text.replace("\"migrating\"", &format!("{:?}", component.display().to_string())))?;
    market.embedded(&pipeline, &folder.join("expected"), &["trades"]).map(|(tables, _)| tables)
}
