//! Rows that a pipeline has written.

use std::{collections::BTreeMap, ops::ControlFlow};

use aws_sdk_dynamodb::{operation::query::builders::QueryFluentBuilder, types::AttributeValue};
use serde_json::{Number, Value};
use tapeline_events::{Unit, format_time, parse_time};

use super::{Account, OperateError, Stores};
use crate::sink::{AT, ROW, TABLE_SYMBOL};

/// Which rows to read.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The table.
    pub table: String,
    /// Only this symbol. Without it all rows of all tables are read, and paid for.
    pub symbol: Option<String>,
    /// Only rows of this time and later, ns since the epoch.
    pub from: Option<i64>,
    /// Only rows before this time.
    pub to: Option<i64>,
    /// At most so many.
    pub limit: Option<u64>,
}

/// A row: its columns.
pub type Row = BTreeMap<String, Value>;

/// Gives the rows of a table to `each`, until that has enough; those of one symbol in the order of their keys.
///
/// # Errors
/// `Wrong` when times are asked for of a table that has none behind the symbol.
pub async fn rows<E: From<OperateError>>(
    account: &Account,
    stores: &Stores,
    query: &Query,
    mut each: impl FnMut(Row) -> Result<(), E>,
) -> Result<(), E> {
    let doing = || format!("read table {} in {}", query.table, stores.rows_table);
    let mut left = query.limit.unwrap_or(u64::MAX);
    let mut take = |item: Item| -> Result<ControlFlow<()>, E> {
        if left == 0 {
            return Ok(ControlFlow::Break(()));
        }
        if query.has_in_time(&item)? {
            each(row(item).ok_or_else(|| OperateError::service(doing(), "an item is no row"))?)?;
            left -= 1;
        }
        Ok(ControlFlow::Continue(()))
    };
    let is_by_time = is_by_time(account, stores, query).await?;
    let mut start = None;
    loop {
        let (items, next) = page(account, stores, query, is_by_time, start).await?;
        for item in items {
            if take(item)?.is_break() {
                return Ok(());
            }
        }
        match next {
            None => return Ok(()),
            next => start = next,
        }
    }
}

type Item = std::collections::HashMap<String, AttributeValue>;

/// Whether times are asked for, of a symbol whose rows are in the order of time: it comes first behind the symbol.
async fn is_by_time(account: &Account, stores: &Stores, query: &Query) -> Result<bool, OperateError> {
    let Some(symbol) = query.symbol.as_ref().filter(|_| query.has_times()) else { return Ok(false) };
    let one =
        of_symbol(account, stores, query, symbol).key_condition_expression("#table_symbol = :table_symbol").limit(1);
    let found = one.send().await.map_err(|error| {
        OperateError::refused(format!("read table {} in {}", query.table, stores.rows_table), &error)
    })?;
    let first = found.items().first().and_then(|item| at(item).split('/').next());
    Ok(first.is_some_and(|first| parse_time(first).is_ok()))
}

/// A query of a symbol, without its condition.
fn of_symbol(account: &Account, stores: &Stores, query: &Query, symbol: &str) -> QueryFluentBuilder {
    let ask = account.dynamodb.query().table_name(&stores.rows_table).consistent_read(true);
    let ask = ask.expression_attribute_names("#table_symbol", TABLE_SYMBOL);
    let key = AttributeValue::S(format!("{}/{symbol}", query.table));
    ask.expression_attribute_values(":table_symbol", key)
}

/// The keys of an item behind its symbol.
fn at(item: &Item) -> &str {
    item.get(AT).and_then(|at| at.as_s().ok()).map(String::as_str).unwrap_or_default()
}

/// Items from a place on, and the place behind them if there are more.
async fn page(
    account: &Account,
    stores: &Stores,
    query: &Query,
    is_by_time: bool,
    start: Option<Item>,
) -> Result<(Vec<Item>, Option<Item>), OperateError> {
    let table = &stores.rows_table;
    let doing = || format!("read table {} in {table}", query.table);
    let text = |text: String| AttributeValue::S(text);
    let Some(symbol) = &query.symbol else {
        let scan = account.dynamodb.scan().table_name(table).consistent_read(true).set_exclusive_start_key(start);
        let scan = scan.filter_expression("begins_with(#table_symbol, :table)");
        let scan = scan.expression_attribute_names("#table_symbol", TABLE_SYMBOL);
        let scan = scan.expression_attribute_values(":table", text(format!("{}/", query.table)));
        let found = scan.send().await.map_err(|error| OperateError::refused(doing(), &error))?;
        return Ok((found.items.unwrap_or_default(), found.last_evaluated_key));
    };
    let mut condition = "#table_symbol = :table_symbol".to_owned();
    let mut ask = of_symbol(account, stores, query, symbol).set_exclusive_start_key(start);
    if is_by_time {
        condition.push_str(" AND #at BETWEEN :from AND :to");
        let time = |time| text(format_time(time, Unit::Nanoseconds));
        ask = ask.expression_attribute_names("#at", AT);
        ask = ask.expression_attribute_values(":from", time(query.from.unwrap_or(i64::MIN)));
        // A row of this very time is none of those that are asked for, and is left out here.
        ask = ask.expression_attribute_values(":to", time(query.to.unwrap_or(i64::MAX)));
    }
    let found = ask.key_condition_expression(condition).send().await;
    let found = found.map_err(|error| OperateError::refused(doing(), &error))?;
    Ok((found.items.unwrap_or_default(), found.last_evaluated_key))
}

impl Query {
    const fn has_times(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// Whether the time of an item, the first among its keys, is one of those that are asked for.
    fn has_in_time(&self, item: &Item) -> Result<bool, OperateError> {
        if !self.has_times() {
            return Ok(true);
        }
        let at = at(item);
        let time = at.split('/').find_map(|key| parse_time(key).ok()).map(|(time, _)| time).ok_or_else(|| {
            OperateError::wrong(format!(
                "read table {} by time: its keys are the symbol and {at:?}, and no time; leave --from and --to out",
                self.table
            ))
        })?;
        Ok(self.from.is_none_or(|from| from <= time) && self.to.is_none_or(|to| time < to))
    }
}

fn row(mut item: Item) -> Option<Row> {
    let AttributeValue::M(cells) = item.remove(ROW)? else { return None };
    cells.into_iter().map(|(name, cell)| Some((name, value(cell)?))).collect()
}

fn value(cell: AttributeValue) -> Option<Value> {
    Some(match cell {
        AttributeValue::Null(_) => Value::Null,
        AttributeValue::Bool(value) => Value::Bool(value),
        AttributeValue::S(text) => Value::String(text),
        AttributeValue::N(number) => Value::Number(match number.parse::<i64>() {
            Ok(number) => number.into(),
            Err(_) => Number::from_f64(number.parse().ok()?)?,
        }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(at: &str) -> Item {
        let cells = [
            ("symbol", AttributeValue::S("A".to_owned())),
            ("price", AttributeValue::N("61837.63".to_owned())),
            ("id", AttributeValue::N("3735683259".to_owned())),
            ("note", AttributeValue::Null(true)),
        ];
        let cells = cells.map(|(name, cell)| (name.to_owned(), cell)).into();
        [(AT.to_owned(), AttributeValue::S(at.to_owned())), (ROW.to_owned(), AttributeValue::M(cells))].into()
    }

    #[test]
    fn a_row_is_a_json_object() {
        let row = serde_json::to_string(&row(item("x")).unwrap()).unwrap();
        assert_eq!(row, r#"{"id":3735683259,"note":null,"price":61837.63,"symbol":"A"}"#);
        assert_eq!(super::row(Item::new()), None);
    }

    #[test]
    fn times_are_from_and_before() {
        let second = |at: i64| Some(at * 1_000_000_000);
        let query = Query { from: second(10), to: second(20), table: "bars".to_owned(), ..Query::default() };
        let has = |at: &str| query.has_in_time(&item(at));
        assert_eq!(has("1970-01-01T00:00:09.999999999Z/1").ok(), Some(false));
        assert_eq!(has("1970-01-01T00:00:10.000000000Z").ok(), Some(true));
        assert_eq!(has("1970-01-01T00:00:20.000000000Z/1").ok(), Some(false));
        // Bars have their interval before it.
        assert_eq!(has("1m/1970-01-01T00:00:19.000000000Z").ok(), Some(true));
        let told = has("09223372036854775813/x").unwrap_err().to_string();
        assert!(told.contains("table bars") && told.contains("no time"), "{told}");
        assert_eq!(Query::default().has_in_time(&item("x")).ok(), Some(true));
    }
}
