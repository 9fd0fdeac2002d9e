//! The functions store what one process stores.

use std::fs;

use anyhow::{Result, ensure};
use tapeline_aws_tests::{
    stack::Stack,
    stored::{self, Tables},
};
use tapeline_tests::program;
use tempfile::TempDir;

/// Lines of one body: some hundreds of kilobytes.
const LINES: usize = 5_000;
/// As many as the recording of the main job has.
const TRADES: u64 = 20_000;
const SYMBOLS: &str = "BTCUSDT,ETHUSDT,SOLUSDT";

pub(crate) fn six_functions_store_what_one_process_stores(stack: &Stack) -> Result<()> {
    let folder = TempDir::new()?;
    let (market, data) = (folder.path().join("market.txt"), folder.path().join("data"));
    let arguments = ["simulate", "--trades", &TRADES.to_string(), "--rate", "200", "--symbols", SYMBOLS];
    let lines = program::output(&arguments)?;
    fs::write(&market, &lines)?;
    let run = program::run(&program::bitcoin_pipeline(), &[&market], &data)?;
    ensure!(run.code == 0 || run.code == 3, "exit code {}: {}", run.code, run.errors);
    let expected: Tables = stored::embedded_tables(&data)?;
    ensure!(expected.len() == 4, "some table is empty: {:?}", expected.keys());

    // Without the receive times in front: functions have their own clock.
    let lines: Vec<&str> = lines.lines().map(|line| line.split_once(' ').map_or(line, |(_, frame)| frame)).collect();
    for lines in lines.chunks(LINES) {
        stack.send("bitcoin-trades", "binance", lines)?;
    }
    stack.wait_until_done()?;
    stored::compare(&expected, &stored::tables(stack)?)?;
    Ok(())
}
