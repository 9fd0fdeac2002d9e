//! What a deployed pipeline has stored, in the form in which the embedded host gives it.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;
use tapeline_aws::{DynamoBucket, Position};
use tapeline_harness::program;
use tapeline_state::Scope;

use crate::stack::Stack;

/// A row: the texts of its columns, those of numbers as Rust writes them.
pub type Row = BTreeMap<String, String>;
/// Rows by their table, in the order of their keys.
pub type Tables = BTreeMap<String, Vec<Row>>;

/// All rows of a stack.
///
/// # Errors
/// When they cannot be read, or one has an unknown form.
pub fn tables(stack: &Stack) -> Result<Tables> {
    let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
    for item in items(stack, "RowsTable")? {
        let place = (text(&item, "table_symbol")?, text(&item, "at")?);
        let row = item.get("row").and_then(|row| row.as_m().ok()).context("a row")?;
        let cells = row.iter().map(|(column, cell)| Ok((column.clone(), cell_text(cell)?)));
        rows.insert(place, cells.collect::<Result<Row>>()?);
    }
    let mut tables = Tables::new();
    for ((place, _), row) in rows {
        let (table, _) = place.split_once('/').with_context(|| format!("no table in {place}"))?;
        tables.entry(table.to_owned()).or_default().push(row);
    }
    Ok(tables)
}

/// The rows that the embedded host has in a data folder.
///
/// # Errors
/// When a query fails.
pub fn embedded_tables(data: &Path, tables: &[&str]) -> Result<Tables> {
    let data = data.to_str().context("a temporary folder has a name")?;
    let rows = |table: &str| {
        let text = program::output(&["query", table, "--data", data, "--format", "json"])?;
        anyhow::Ok((table.to_owned(), rows_of(&text)?))
    };
    tables.iter().map(|table| rows(table)).collect()
}

/// The rows of `tapeline query --format json`.
///
/// # Errors
/// When it is none.
pub fn rows_of(text: &str) -> Result<Vec<Row>> {
    let rows: Vec<BTreeMap<String, Value>> = serde_json::from_str(text)?;
    let row = |row: BTreeMap<String, Value>| row.into_iter().map(|(column, value)| (column, value_text(value)));
    Ok(rows.into_iter().map(|cells| row(cells).collect()).collect())
}

/// Says where two stores differ first.
///
/// # Errors
/// When they do.
pub fn compare(expected: &Tables, found: &Tables) -> Result<()> {
    let counts = |tables: &Tables| -> BTreeMap<String, usize> {
        tables.iter().map(|(table, rows)| (table.clone(), rows.len())).collect()
    };
    for (table, rows) in expected {
        let others = found.get(table).map(Vec::as_slice).unwrap_or_default();
        let difference = rows.iter().zip(others).position(|(one, other)| one != other);
        if let Some(at) = difference {
            bail!("{table}, row {at}: {:?} instead of {:?}; in all {:?}", others[at], rows[at], counts(found));
        }
    }
    ensure!(counts(expected) == counts(found), "{:?} rows instead of {:?}", counts(found), counts(expected));
    Ok(())
}

/// How many records were put aside.
///
/// # Errors
/// When they cannot be read.
pub fn dead_letters(stack: &Stack) -> Result<Vec<BTreeMap<String, String>>> {
    let letters = items(stack, "DeadLettersTable")?;
    letters
        .iter()
        .map(|letter| letter.iter().map(|(name, value)| Ok((name.clone(), cell_text(value)?))).collect())
        .collect()
}

/// The files, each with its parts put together: the first with the header, the others without.
///
/// # Errors
/// When they cannot be read.
pub fn objects(stack: &Stack) -> Result<BTreeMap<String, Vec<u8>>> {
    let (bucket, client) = (stack.output("ObjectsBucket")?, aws_sdk_s3::Client::from_conf(stack.account.aws.s3()));
    stack.account.runtime.block_on(async {
        let mut objects: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut pages = client.list_objects_v2().bucket(bucket).into_paginator().send();
        while let Some(page) = pages.next().await {
            // Keys come in their order, and with it parts in theirs.
            for key in page?.contents().iter().filter_map(|object| object.key()) {
                let (path, _) = key.rsplit_once('/').with_context(|| format!("a part in {key}"))?;
                if path.starts_with("raw/") {
                    continue;
                }
                let part = client.get_object().bucket(bucket).key(key).send().await?.body.collect().await?.to_vec();
                let header = part.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default().len();
                match objects.get_mut(path) {
                    None => _ = objects.insert(path.to_owned(), part),
                    Some(object) => object.extend(part.get(header..).unwrap_or_default()),
                }
            }
        }
        Ok(objects)
    })
}

/// How far the function of a stage has come, in the first partition.
///
/// # Errors
/// When it cannot be read.
pub fn position(stack: &Stack, pipeline: &str, stage: &str) -> Result<Position> {
    position_in(stack, pipeline, stage, 0)
}

/// How far the function of a stage has come in a partition.
///
/// # Errors
/// When it cannot be read.
pub fn position_in(stack: &Stack, pipeline: &str, stage: &str, partition: u32) -> Result<Position> {
    let client = aws_sdk_dynamodb::Client::from_conf(stack.account.aws.dynamodb());
    let bucket = DynamoBucket::new(client, stack.output("StateTable")?.to_owned());
    let scope: Scope<'_, DynamoBucket, Position> = Scope::of_segment(&bucket, pipeline, stage, partition);
    Ok(stack.account.runtime.block_on(scope.begin())?.meta)
}

type Item = std::collections::HashMap<String, AttributeValue>;

fn items(stack: &Stack, output: &str) -> Result<Vec<Item>> {
    let client = aws_sdk_dynamodb::Client::from_conf(stack.account.aws.dynamodb());
    let items = client.scan().table_name(stack.output(output)?).consistent_read(true).into_paginator().items().send();
    let items = stack.account.runtime.block_on(items.collect::<Result<Vec<Item>, _>>());
    items.with_context(|| format!("read {output}"))
}

fn text(item: &Item, name: &str) -> Result<String> {
    let text = item.get(name).and_then(|value| value.as_s().ok());
    Ok(text.with_context(|| format!("no {name} in {item:?}"))?.clone())
}

fn cell_text(cell: &AttributeValue) -> Result<String> {
    Ok(match cell {
        AttributeValue::S(text) => text.clone(),
        AttributeValue::N(number) => number_text(number),
        AttributeValue::Bool(flag) => flag.to_string(),
        AttributeValue::Null(_) => Value::Null.to_string(),
        other => bail!("a cell cannot be {other:?}"),
    })
}

fn value_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Number(number) => number_text(&number.to_string()),
        other => other.to_string(),
    }
}

/// The same for 1, 1.0 and 1e0; integers keep all their digits.
fn number_text(number: &str) -> String {
    match (number.parse::<i64>(), number.parse::<f64>()) {
        (Ok(integer), _) => integer.to_string(),
        (_, Ok(value)) => value.to_string(),
        _ => number.to_owned(),
    }
}
