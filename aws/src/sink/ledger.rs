//! The ledger in a table of DynamoDB: what became of every record, by stage, symbol and day.
//!
//! | attribute | |
//! | --- | --- |
//! | `stage_symbol` | partition key: `<stage>/<symbol>`; nothing behind the slash where the symbol is not known |
//! | `day_partition` | sort key: `<day>/<partition>`; `-` for a day that is not known |
//! | `in`, `out`, `duplicate`, `late`, `dead`, `derived` | counts; absent for 0 |
//! | `dropped:<rule>` | what this rule left out |
//! | `step` | the commit of the partition that was added last |
//!
//! Commits of a partition are delivered in their order, each before the next one happens. So an item that knows a step has
//! everything up to it, and adding one again is refused: each commit is added once. Partitions count apart, since one
//! symbol may come from several when a stage has changed its name.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::{
    Client,
    error::SdkError,
    operation::update_item::{UpdateItemError, builders::UpdateItemFluentBuilder},
    types::AttributeValue,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tapeline_events::Day;
use tapeline_invoke::{Counts, LedgerKey};

use super::{Part, REQUESTS_MAX, SinkError, fitted};

/// The partition key.
const STAGE_SYMBOL: &str = "stage_symbol";
/// The sort key.
const DAY_PARTITION: &str = "day_partition";
const STEP: &str = "step";
const DROPPED: &str = "dropped:";
/// A day that is not known; before all days.
const NO_DAY: &str = "-";
/// Bytes of the partition key, of 2048 that it may have.
const STAGE_SYMBOL_BYTES_MAX: usize = 2_000;
/// Bytes of the name of a rule.
const RULE_BYTES_MAX: usize = 255;
/// Rules of a line, since an expression has 4 KB: what others have dropped is counted together.
const RULES_MAX: usize = 100;
const OTHER_RULES: &str = "~others";

/// What a commit adds to the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The stage.
    pub stage: String,
    /// The symbol; empty where it is not known.
    pub symbol: String,
    /// The day of the events in UTC, days since 1970-01-01; none where it is not known.
    pub day: Option<i32>,
    /// What is added.
    pub counts: Counts,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Ledger {
    client: Client,
    table: String,
}

impl Line {
    /// Lines of counts, each of an item of its own: names of stages are unique, and none is that of our own step.
    pub(crate) fn of(counted: BTreeMap<LedgerKey, Counts>) -> impl Iterator<Item = Self> {
        counted.into_iter().map(|(LedgerKey { stage, symbol, day, .. }, counts)| {
            let day = day.map(|day| day.0);
            Self { stage, symbol, day, counts }
        })
    }
}

impl Ledger {
    /// A table that is there.
    pub const fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Adds what a commit has counted, unless that has been done.
    ///
    /// # Errors
    /// When something was not added. Then it is to be done once more.
    pub async fn add(&self, lines: &[Line], part: Part) -> Result<(), SinkError> {
        let adds: Vec<_> = lines.iter().filter_map(|line| self.update(line, part)).map(add_once).collect();
        stream::iter(adds).buffer_unordered(REQUESTS_MAX).try_collect().await
    }

    /// What a line changes; nothing for one without counts.
    fn update(&self, Line { stage, symbol, day, counts }: &Line, part: Part) -> Option<UpdateItemFluentBuilder> {
        let day = day.map_or_else(|| NO_DAY.to_owned(), |day| Day(day).to_string());
        let stage_symbol = format!("{stage}/{symbol}");
        let key = [
            (STAGE_SYMBOL, fitted(&stage_symbol, STAGE_SYMBOL_BYTES_MAX).into_owned()),
            (DAY_PARTITION, format!("{day}/{:03}", part.partition)),
        ];
        let mut update = self.client.update_item().table_name(&self.table);
        for (name, value) in key {
            update = update.key(name, AttributeValue::S(value));
        }
        let added = columns(counts).into_iter().filter(|(_, count)| *count > 0);
        let mut adds = Vec::new();
        for (at, (name, count)) in added.enumerate() {
            adds.push(format!("#{at} :{at}"));
            update = update.expression_attribute_names(format!("#{at}"), name);
            update = update.expression_attribute_values(format!(":{at}"), AttributeValue::N(count.to_string()));
        }
        if adds.is_empty() {
            return None;
        }
        let update = update.update_expression(format!("ADD {} SET #step = :step", adds.join(", ")));
        let update = update.condition_expression("attribute_not_exists(#step) OR #step < :step");
        let update = update.expression_attribute_names("#step", STEP);
        Some(update.expression_attribute_values(":step", AttributeValue::N(part.step.to_string())))
    }

    /// The ledger of these stages, which are numbered in this order, all others behind them: of all symbols; or of one, then
    /// without others.
    ///
    /// # Errors
    /// When the table cannot be read, or an item in it is none of ours.
    pub async fn read(
        &self,
        stages: &[String],
        symbol: Option<&str>,
    ) -> Result<BTreeMap<LedgerKey, Counts>, SinkError> {
        let mut ledger: BTreeMap<LedgerKey, Counts> = BTreeMap::new();
        for item in self.items(stages, symbol).await? {
            let (key, counts) = read(&item, stages).ok_or_else(|| SinkError {
                service: "DynamoDB",
                message: format!("table {}: {item:?} is no line of a ledger of {stages:?}", self.table),
            })?;
            ledger.entry(key).or_default().add(&counts);
        }
        Ok(ledger)
    }

    async fn items(&self, stages: &[String], symbol: Option<&str>) -> Result<Vec<Item>, SinkError> {
        let unread = |error| SinkError::new("DynamoDB", error);
        let Some(symbol) = symbol else {
            let scan = self.client.scan().table_name(&self.table).consistent_read(true);
            let items = scan.into_paginator().items().send();
            return items.collect::<Result<_, _>>().await.map_err(unread);
        };
        let mut items = Vec::new();
        for stage in stages {
            let stage_symbol = format!("{stage}/{symbol}");
            let value = AttributeValue::S(fitted(&stage_symbol, STAGE_SYMBOL_BYTES_MAX).into_owned());
            let query = self.client.query().table_name(&self.table).consistent_read(true);
            let query = query.key_condition_expression(format!("{STAGE_SYMBOL} = :key"));
            let found = query.expression_attribute_values(":key", value).into_paginator().items().send();
            let found: Result<Vec<Item>, _> = found.collect().await;
            items.extend(found.map_err(|error| SinkError::new("DynamoDB", error))?);
        }
        Ok(items)
    }
}

type Item = HashMap<String, AttributeValue>;

async fn add_once(update: UpdateItemFluentBuilder) -> Result<(), SinkError> {
    match update.send().await {
        Ok(_) => Ok(()),
        Err(error) if is_known(&error) => Ok(()),
        Err(error) => Err(SinkError::new("DynamoDB", error)),
    }
}

fn is_known<R>(error: &SdkError<UpdateItemError, R>) -> bool {
    error.as_service_error().is_some_and(UpdateItemError::is_conditional_check_failed_exception)
}

/// The names of counts and their values.
fn columns(counts: &Counts) -> Vec<(String, u64)> {
    let Counts { entered, out, duplicate, late, dead, dropped, derived } = counts;
    let fixed = NAMES.into_iter().zip([entered, out, duplicate, late, dead, derived]);
    let fixed = fixed.map(|(name, count)| (name.to_owned(), *count));
    let named = dropped.iter().take(RULES_MAX);
    let named = named.map(|(rule, count)| (format!("{DROPPED}{}", fitted(rule, RULE_BYTES_MAX)), *count));
    let others = dropped.values().skip(RULES_MAX).sum();
    fixed.chain(named).chain([(format!("{DROPPED}{OTHER_RULES}"), others)]).collect()
}

const NAMES: [&str; 6] = ["in", "out", "duplicate", "late", "dead", "derived"];

/// A line of the ledger; nothing for an item that is none.
fn read(item: &Item, stages: &[String]) -> Option<(LedgerKey, Counts)> {
    let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok());
    let (stage, symbol) = text(STAGE_SYMBOL)?.split_once('/')?;
    let (day, _) = text(DAY_PARTITION)?.split_once('/')?;
    let day = if day == NO_DAY { None } else { Some(Day::parse(day)?) };
    let stage_index = stages.iter().position(|known| known == stage).unwrap_or(stages.len());
    let stage_index = u32::try_from(stage_index).ok()?;
    let mut counts = Counts::default();
    for (name, value) in item {
        let Ok(count) = value.as_n() else { continue };
        let count: u64 = count.parse().ok()?;
        match (name.as_str(), name.strip_prefix(DROPPED)) {
            (STEP, _) => {}
            ("in", _) => counts.entered = count,
            ("out", _) => counts.out = count,
            ("duplicate", _) => counts.duplicate = count,
            ("late", _) => counts.late = count,
            ("dead", _) => counts.dead = count,
            ("derived", _) => counts.derived = count,
            (_, Some(rule)) => _ = counts.dropped.insert(rule.to_owned(), count),
            _ => return None,
        }
    }
    Some((LedgerKey { stage_index, stage: stage.to_owned(), symbol: symbol.to_owned(), day }, counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> Counts {
        let dropped = [("depth".to_owned(), 2)].into();
        Counts { entered: 9, out: 1, duplicate: 2, late: 3, dead: 1, dropped, derived: 7 }
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let stages = ["fetch".to_owned(), "dedup".to_owned()];
        let texts = [(STAGE_SYMBOL, "dedup/BRK/B"), (DAY_PARTITION, "2024-08-08/003")];
        let texts = texts.map(|(name, text)| (name.to_owned(), AttributeValue::S(text.to_owned())));
        let numbers = columns(&counts()).into_iter().filter(|(_, count)| *count > 0).chain([(STEP.to_owned(), 4)]);
        let numbers = numbers.map(|(name, count)| (name, AttributeValue::N(count.to_string())));
        let mut item: Item = numbers.chain(texts).collect();
        let (key, found) = read(&item, &stages).unwrap();
        assert_eq!((key.stage_index, key.stage.as_str(), key.symbol.as_str()), (1, "dedup", "BRK/B"));
        assert_eq!((key.day, found), (Day::parse("2024-08-08"), counts()));
        item.insert(DAY_PARTITION.to_owned(), AttributeValue::S("-/000".to_owned()));
        assert_eq!(read(&item, &stages).unwrap().0.day, None);
        // One that the pipeline has no more.
        assert_eq!(read(&item, &stages[..1]).unwrap().0.stage_index, 1);
        item.insert(DAY_PARTITION.to_owned(), AttributeValue::S("what".to_owned()));
        assert_eq!(read(&item, &stages), None);
    }

    #[test]
    fn what_a_component_says_has_limits() {
        let dropped = (0..300).map(|rule| (format!("rule-{rule:03}"), 2)).collect();
        let many = Counts { entered: 600, dropped, ..Counts::default() };
        let columns = columns(&many);
        assert_eq!(columns.len(), NAMES.len() + RULES_MAX + 1);
        let total: u64 = columns.iter().filter(|(name, _)| name.starts_with(DROPPED)).map(|(_, count)| count).sum();
        assert_eq!((total, columns.last().unwrap().1), (600, 400));
    }
}
