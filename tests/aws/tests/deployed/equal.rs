//! The functions store what one process stores.

use anyhow::{Result, ensure};
use tapeline_aws_tests::{alarms::Alarms, ledger, stack::Stack, stored};
use tapeline_harness::program;
use tempfile::TempDir;

use crate::{market::Market, read};

/// As many as the recording of the main job has.
const TRADES: u64 = 20_000;
const TABLES: [&str; 4] = ["trades", "bars", "averages", "alarms"];
/// Lines of one body: nearly a megabyte.
const LINES: usize = 5_000;

pub(crate) fn six_functions_store_what_one_process_stores(stack: &Stack) -> Result<()> {
    let folder = TempDir::new()?;
    let data = folder.path().join("data");
    let market = Market::new(folder.path(), &[(TRADES, "BTCUSDT,ETHUSDT,SOLUSDT")])?;
    let (tables, rest) = market.embedded(&program::bitcoin_pipeline(), &data, &TABLES)?;
    ensure!(tables.values().all(|rows| !rows.is_empty()), "a table is empty");

    let told = Alarms::follow(stack)?;
    market.lines().chunks(LINES).try_for_each(|lines| stack.send("bitcoin-trades", "binance", lines))?;
    stack.end()?;
    stack.wait_until_done()?;
    stored::compare(&tables, &stored::tables(stack)?)?;
    let (objects, dead) = (stored::objects(stack)?, stored::dead_letters(stack)?.len());
    ensure!(objects == rest.objects, "other files: {:?}", objects.keys());
    ensure!(dead == rest.dead_letters, "{dead} dead letters instead of {}", rest.dead_letters);
    let (alarms, wanted) = (told.lines()?.len(), tables["alarms"].len());
    ensure!(alarms == wanted, "{alarms} alarms were told instead of {wanted}");
    ledger::compare(&ledger::embedded(stack, &data)?, &ledger::deployed(stack)?)?;
    read::it_is_read_as_what_one_process_has_stored(stack, &data)
}
