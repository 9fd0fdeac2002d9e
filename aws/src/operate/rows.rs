//! Rows that a pipeline has written.

use std::{collections::BTreeMap, ops::ControlFlow};

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Number, Value};
use tapeline_events::{Unit, format_time, parse_time};

use super::{Account, OperateError, Stack};
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
    stack: &Stack,
    query: &Query,
    mut each: impl FnMut(Row) -> Result<(), E>,
) -> Result<(), E> {
    let doing = || format!("read table {} in {}", query.table, stack.rows_table);
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
    let mut start = None;
    loop {
        let (items, next) = page(account, stack, query, start).await?;
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

/// Items from a place on, and the place behind them if there are more.
async fn page(
    account: &Account,
    stack: &Stack,
    query: &Query,
    start: Option<Item>,
) -> Result<(Vec<Item>, Option<Item>), OperateError> {
    let table = &stack.rows_table;
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
    let mut ask = account.dynamodb.query().table_name(table).consistent_read(true).set_exclusive_start_key(start);
    ask = ask.expression_attribute_names("#table_symbol", TABLE_SYMBOL);
    ask = ask.expression_attribute_values(":table_symbol", text(format!("{}/{symbol}", query.table)));
    // One condition is all that a sort key may have; what else is asked for is looked at here.
    if let Some(from) = query.from {
        condition.push_str(" AND #at >= :from");
        ask = ask.expression_attribute_names("#at", AT);
        ask = ask.expression_attribute_values(":from", text(format_time(from, Unit::Nanoseconds)));
    } else if let Some(to) = query.to {
        condition.push_str(" AND #at < :to");
        ask = ask.expression_attribute_names("#at", AT);
        ask = ask.expression_attribute_values(":to", text(format_time(to, Unit::Nanoseconds)));
    }
    let found = ask.key_condition_expression(condition).send().await;
    let found = found.map_err(|error| OperateError::refused(doing(), &error))?;
    Ok((found.items.unwrap_or_default(), found.last_evaluated_key))
}

impl Query {
    /// Whether the time of an item, the first key behind the symbol, is one of those that are asked for.
    fn has_in_time(&self, item: &Item) -> Result<bool, OperateError> {
        if self.from.is_none() && self.to.is_none() {
            return Ok(true);
        }
        let at = item.get(AT).and_then(|at| at.as_s().ok()).map(String::as_str).unwrap_or_default();
        let time = at.split('/').next().and_then(|time| parse_time(time).ok()).map(|(time, _)| time);
        let time = time.ok_or_else(|| {
            OperateError::wrong(format!(
                "read table {} by time: behind the symbol its key has {at:?} and no time; leave --from and --to out",
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
        let told = has("09223372036854775813/x").unwrap_err().to_string();
        assert!(told.contains("table bars") && told.contains("no time"), "{told}");
        assert_eq!(Query::default().has_in_time(&item("x")).ok(), Some(true));
    }
}
