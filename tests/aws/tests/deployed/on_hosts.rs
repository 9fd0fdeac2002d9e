//! A stack without functions, for hosts of our own: what they have written there is read as that of functions.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;
use tapeline_aws::sink::{AT, Ledger, Line, Part, ROW, TABLE_SYMBOL};
use tapeline_aws_tests::{
    assembly::Assembly,
    operator,
    stack::{Account, Stack},
};
use tapeline_invoke::Counts;
use tempfile::TempDir;

use crate::{
    destroy::{all, file},
    keeper,
};

/// Wrong usage, or what is not there.
const WRONG: i32 = 2;

pub(crate) fn stores_alone_are_read_kept_and_have_no_functions(account: &Arc<Account>) -> Result<()> {
    let folder = TempDir::new()?;
    let pipeline = file(folder.path(), "on-hosts", "functions = false\nrows_expire = \"90d\"")?;
    // No package is asked for.
    let stack = Assembly::synthesize(account, &pipeline, &["keep=true", "package=/nowhere"])?.deploy()?;
    ensure!(stack.output("RowsExpire")? == "7776000" && stack.output("Functions")? == "false", "outputs");
    ensure!(stack.output("HostPolicyArn")?.contains(":policy/"), "{}", stack.output("HostPolicyArn")?);

    write(&stack)?;
    let ledger = lines(&stack, &["ledger", &stack.name])?;
    let found: Vec<_> = ledger.iter().map(|line| (line["stage"].as_str(), line["stage_index"].as_u64())).collect();
    ensure!(found == [(Some("fetch"), Some(0)), (Some("write"), Some(2))], "{ledger:?}");
    let rows = lines(&stack, &["rows", &stack.name, "bars"])?;
    ensure!(rows == [serde_json::json!({ "symbol": "A", "close": 2 })], "{rows:?}");

    keeper::what_hosts_commit_is_read(&stack, "on-hosts")?;

    for command in [&["stage", "list", &stack.name][..], &["redrive", &stack.name]] {
        let run = operator::run(&stack.account.aws.endpoint(), command)?;
        ensure!(run.code == WRONG && run.errors.contains("it has none, only what hosts work on"), "{run:?}");
    }

    let there = all(&stack)?;
    ensure!(there.keys().eq(&["buckets", "tables"]) && there["tables"].len() == 4, "{there:?}");
    stack.destroy()?;
    let left = all(&stack)?;
    ensure!(left == there, "{left:?} instead of {there:?}");
    Ok(())
}

/// A line of the ledger for each stage, and a row.
fn write(stack: &Stack) -> Result<()> {
    let client = aws_sdk_dynamodb::Client::from_conf(stack.account.aws.dynamodb());
    let ledger = Ledger::new(client.clone(), stack.output("LedgerTable")?.to_owned());
    let counts = Counts { entered: 1, out: 1, ..Counts::default() };
    let line = |stage: &str| {
        let (stage, symbol, counts) = (stage.to_owned(), "A".to_owned(), counts.clone());
        Line { stage, symbol, day: Some(0), counts }
    };
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let cells =
        HashMap::from([("symbol".to_owned(), text("A")), ("close".to_owned(), AttributeValue::N("2".to_owned()))]);
    let put = client.put_item().table_name(stack.output("RowsTable")?).item(TABLE_SYMBOL, text("bars/A"));
    let put = put.item(AT, text("1970-01-01T00:00:00.000000000Z")).item(ROW, AttributeValue::M(cells));
    stack.account.runtime.block_on(async {
        ledger.add(&[line("write"), line("fetch")], Part { partition: 0, step: 1 }).await?;
        put.send().await.context("put a row")?;
        Ok(())
    })
}

fn lines(stack: &Stack, command: &[&str]) -> Result<Vec<Value>> {
    let run = operator::run(&stack.account.aws.endpoint(), command)?;
    ensure!(run.code == 0, "{run:?}");
    run.said.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
