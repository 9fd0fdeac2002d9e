//! What is stored on AWS is read by the commands that read a data folder, with the same answers.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use tapeline_aws_tests::{
    ledger, operator,
    stack::Stack,
    stored::{self, Row},
};
use tapeline_harness::program;

/// As the vendor calls it, and as the rows do.
const SYMBOL: &str = "BTCUSDT";
const ROWS_SYMBOL: &str = "BINANCE:BTCUSDT";

pub(crate) fn it_is_read_as_what_one_process_has_stored(stack: &Stack, data: &Path) -> Result<()> {
    let counted = ledger::of_lines(stack, &tapeline(stack, &["ledger", "--format", "json"])?)?;
    ledger::compare(&ledger::embedded(stack, data)?, &counted)?;
    let of_symbol = ledger::of_lines(stack, &tapeline(stack, &["ledger", "--symbol", SYMBOL, "--format", "json"])?)?;
    let expected = counted.into_iter().filter(|((_, symbol, _), _)| symbol == SYMBOL).collect();
    ledger::compare(&expected, &of_symbol)?;
    ensure!(!expected.is_empty(), "nothing is counted of {SYMBOL}");
    let table = tapeline(stack, &["ledger", "--format", "csv"])?;
    ensure!(table.starts_with("stage,symbol,day,in,out,"), "{table}");

    let all = same(stack, data, &["bars", "--symbol", ROWS_SYMBOL])?;
    let time = |at: usize| all.get(at).and_then(|row| row.get("start")).cloned().context("a bar with its start");
    let (from, to) = (time(all.len() / 4)?, time(all.len() / 2)?);
    let from_on = same(stack, data, &["bars", "--symbol", ROWS_SYMBOL, "--from", &from])?;
    let before = same(stack, data, &["bars", "--symbol", ROWS_SYMBOL, "--to", &to])?;
    let between = same(stack, data, &["bars", "--symbol", ROWS_SYMBOL, "--from", &from, "--to", &to])?;
    let sizes = (from_on.len(), before.len(), between.len());
    ensure!(between.first().is_some_and(|row| row.get("start") == Some(&from)), "{between:?}");
    ensure!(sizes.0 + sizes.1 == all.len() + sizes.2 && sizes.2 > 0, "{sizes:?} of {}", all.len());
    let trades = same(stack, data, &["trades", "--symbol", ROWS_SYMBOL, "--from", &from, "--to", &to])?;
    ensure!(!trades.is_empty(), "no trades from {from} to {to}");
    ensure!(
        same(stack, data, &["trades", "--symbol", ROWS_SYMBOL, "--limit", "3"])?.len() == 3,
        "three were asked for"
    );
    // Without a symbol they come in another order.
    let mut whole = rows(stack, &["alarms"])?;
    let mut expected = embedded(data, &["alarms"])?;
    whole.sort();
    expected.sort();
    ensure!(whole == expected && !whole.is_empty(), "{whole:?} instead of {expected:?}");
    ensure!(rows(stack, &["nothing"])?.is_empty(), "there are rows of a table that is not there");
    Ok(())
}

/// The rows of both, if they are the same.
fn same(stack: &Stack, data: &Path, query: &[&str]) -> Result<Vec<Row>> {
    let (found, expected) = (rows(stack, query)?, embedded(data, query)?);
    ensure!(found == expected, "{query:?}: {found:?} instead of {expected:?}");
    Ok(found)
}

fn rows(stack: &Stack, query: &[&str]) -> Result<Vec<Row>> {
    stored::rows_of(&tapeline(stack, &[&["query"], query, &["--format", "json"]].concat())?)
}

fn embedded(data: &Path, query: &[&str]) -> Result<Vec<Row>> {
    let data = data.to_str().context("a temporary folder has a name")?;
    stored::rows_of(&program::output(&[&["query"], query, &["--data", data, "--format", "json"]].concat())?)
}

/// What `tapeline` writes, which runs `tapeline-aws`.
fn tapeline(stack: &Stack, arguments: &[&str]) -> Result<String> {
    let mut command = operator::set_up(program::path(), &stack.account.aws.endpoint());
    let output = command.args(arguments).args(["--aws", &stack.name]).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{arguments:?}: {} {said}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
