//! The ledger of a deployed pipeline, and that of one process.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tapeline_aws::sink;
use tapeline_harness::program;
use tapeline_invoke::{Counts, LedgerKey, WATERMARK_STAGE};

use crate::stack::Stack;

/// Counts by stage, symbol and day. Without the day at the fetcher: where an event's is not known it is that of its receipt,
/// and functions receive a recording now.
pub type Ledger = BTreeMap<(String, String, Option<String>), Counts>;

/// What the functions of a stack have counted.
///
/// # Errors
/// When it cannot be read.
pub fn deployed(stack: &Stack) -> Result<Ledger> {
    let client = aws_sdk_dynamodb::Client::from_conf(stack.account.aws.dynamodb());
    let table = sink::Ledger::new(client, stack.output("LedgerTable")?.to_owned());
    let stages: Vec<String> = stack.stages.iter().cloned().chain([WATERMARK_STAGE.to_owned()]).collect();
    let mut ledger = Ledger::new();
    for (LedgerKey { stage, symbol, day, .. }, counts) in stack.account.runtime.block_on(table.read(&stages, None))? {
        ledger.entry(key(stack, stage, symbol, day.map(|day| day.to_string()))).or_default().add(&counts);
    }
    Ok(ledger)
}

/// What one process has counted, whose data are in this folder, of the pipeline of a stack.
///
/// # Errors
/// When it cannot be read.
pub fn embedded(stack: &Stack, data: &Path) -> Result<Ledger> {
    let data = data.to_str().context("a temporary folder has a name")?;
    of_lines(stack, &program::output(&["ledger", "--data", data, "--format", "json"])?)
}

/// What `tapeline ledger --format json` says of the pipeline of a stack.
///
/// # Errors
/// When it is no ledger.
pub fn of_lines(stack: &Stack, text: &str) -> Result<Ledger> {
    let lines: Vec<Value> = serde_json::from_str(text)?;
    let mut ledger = Ledger::new();
    for line in &lines {
        let text = |name: &str| line[name].as_str().map(str::to_owned);
        let stage = text("stage").with_context(|| format!("no stage in {line}"))?;
        let key = key(stack, stage, text("symbol").unwrap_or_default(), text("day"));
        ledger.entry(key).or_default().add(&counts(line)?);
    }
    Ok(ledger)
}

/// Says where two ledgers differ first, or one does not balance.
///
/// # Errors
/// When that is so.
pub fn compare(expected: &Ledger, found: &Ledger) -> Result<()> {
    let unbalanced = found.iter().find(|(_, counts)| !counts.balances());
    ensure!(unbalanced.is_none(), "it does not balance: {unbalanced:?}");
    for (key, counts) in expected {
        let others = found.get(key);
        ensure!(others == Some(counts), "{key:?}: {others:?} instead of {counts:?}");
    }
    let more = found.iter().find(|(key, _)| !expected.contains_key(*key));
    ensure!(more.is_none(), "{more:?} too much");
    Ok(())
}

/// All that a stage has counted.
pub fn of_stage(ledger: &Ledger, stage: &str) -> Counts {
    let mut sum = Counts::default();
    ledger.iter().filter(|((of, ..), _)| of == stage).for_each(|(_, counts)| sum.add(counts));
    sum
}

fn key(stack: &Stack, stage: String, symbol: String, day: Option<String>) -> (String, String, Option<String>) {
    let is_first = stack.stages.first() == Some(&stage);
    (stage, symbol, day.filter(|_| !is_first))
}

fn counts(line: &Value) -> Result<Counts> {
    let number = |name: &str| line[name].as_u64().with_context(|| format!("{name} in {line}"));
    let rules = line["rules"].as_str().unwrap_or_default().split(", ").filter(|rule| !rule.is_empty());
    let rule = |rule: &str| {
        let (rule, count) = rule.rsplit_once(' ').with_context(|| format!("rules of {line}"))?;
        Ok((rule.to_owned(), count.parse()?))
    };
    Ok(Counts {
        entered: number("in")?,
        out: number("out")?,
        duplicate: number("duplicate")?,
        late: number("late")?,
        dead: number("dead")?,
        dropped: rules.map(rule).collect::<Result<BTreeMap<String, u64>>>()?,
        derived: number("derived")?,
    })
}
