//! Rows in a table of DynamoDB.
//!
//! | attribute | |
//! | --- | --- |
//! | `table_symbol` | partition key: `<table>/<first key column>` |
//! | `at` | sort key: the other key columns, joined by `/`, in an order as of their values |
//! | `row` | a map of all columns, as text queries show them: times are texts |
//! | `order` | the commit that wrote it last |
//! | `expires` | when it may go, seconds since the epoch; only where rows expire |
//!
//! A row takes the place of one with the same key, unless that one comes from later work: two functions may do the same
//! work at once, and the slower one must not bring back what was before.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use aws_sdk_dynamodb::{Client, error::SdkError, operation::put_item::PutItemError, types::AttributeValue};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tapeline_events::{Unit, format_time};
use tapeline_invoke::{
    Value, cell,
    contract::{self, Cells},
    row_count,
};

use super::{Part, REQUESTS_MAX, SinkError, fitted};

/// The partition key.
pub const TABLE_SYMBOL: &str = "table_symbol";
/// The sort key.
pub const AT: &str = "at";
/// The columns.
pub const ROW: &str = "row";
/// When an item may go.
pub const EXPIRES: &str = "expires";
const ORDER: &str = "order";
/// Bytes of the partition key, of 2048 that it may have.
const TABLE_SYMBOL_BYTES_MAX: usize = 2_000;
/// Bytes of the sort key, of 1024 that it may have.
const AT_BYTES_MAX: usize = 1_000;

/// A table.
#[derive(Clone, Debug)]
pub struct Rows {
    client: Client,
    table: String,
    expire: Option<Duration>,
}

type Item = HashMap<String, AttributeValue>;

impl Rows {
    /// A table that is there; its rows may go after so long.
    pub const fn new(client: Client, table: String, expire: Option<Duration>) -> Self {
        Self { client, table, expire }
    }

    /// Puts rows in. Of those with one key the last stays.
    ///
    /// # Errors
    /// When one was not taken.
    pub async fn put(&self, rows: &[contract::Rows], part: Part) -> Result<(), SinkError> {
        let mut items: HashMap<(String, String), Item> = HashMap::new();
        let expires = self.expire.map(|after| seconds(SystemTime::now() + after).to_string());
        for rows in rows {
            for at in 0..row_count(rows).unwrap_or_default() {
                let (key, row) = (key(rows, at), row(rows, at));
                let text = |text: &str| AttributeValue::S(text.to_owned());
                let mut item = Item::from([
                    (TABLE_SYMBOL.to_owned(), text(&key.0)),
                    (AT.to_owned(), text(&key.1)),
                    (ROW.to_owned(), AttributeValue::M(row)),
                    (ORDER.to_owned(), AttributeValue::N(part.step.to_string())),
                ]);
                item.extend(expires.iter().map(|time| (EXPIRES.to_owned(), AttributeValue::N(time.clone()))));
                items.insert(key, item);
            }
        }
        let puts: Vec<_> = items.into_values().map(|item| self.put_one(item, part)).collect();
        stream::iter(puts).buffer_unordered(REQUESTS_MAX).try_collect().await
    }

    async fn put_one(&self, item: Item, part: Part) -> Result<(), SinkError> {
        let put = self.client.put_item().table_name(&self.table).set_item(Some(item));
        let put = put.condition_expression("attribute_not_exists(#order) OR #order <= :order");
        let put = put.expression_attribute_names("#order", ORDER);
        match put.expression_attribute_values(":order", AttributeValue::N(part.step.to_string())).send().await {
            Ok(_) => Ok(()),
            Err(error) if is_later(&error) => Ok(()),
            Err(error) => Err(SinkError::new("DynamoDB", error)),
        }
    }
}

fn is_later<R>(error: &SdkError<PutItemError, R>) -> bool {
    error.as_service_error().is_some_and(PutItemError::is_conditional_check_failed_exception)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Both keys of a row.
fn key(rows: &contract::Rows, at: usize) -> (String, String) {
    let mut keys = rows.columns.iter().take(rows.key_columns as usize).map(|column| key_text(&column.cells, at));
    let first = keys.next().unwrap_or_default();
    let rest: Vec<String> = keys.map(|key| escaped(&key)).collect();
    let at = rest.join("/");
    // A key cannot be empty.
    let at = if at.is_empty() { "-".to_owned() } else { fitted(&at, AT_BYTES_MAX).into_owned() };
    let first = format!("{}/{first}", rows.table);
    (fitted(&first, TABLE_SYMBOL_BYTES_MAX).into_owned(), at)
}

/// A text without the letter that separates keys.
fn escaped(key: &str) -> String {
    key.replace('%', "%25").replace('/', "%2F")
}

/// A value as a text whose order is that of the values.
fn key_text(cells: &Cells, at: usize) -> String {
    match cells {
        Cells::Times((cells, _)) => {
            cells.get(at).map_or_else(String::new, |time| format_time(*time, Unit::Nanoseconds))
        }
        // Moved up, so that the negative ones come first.
        Cells::Integers(cells) => {
            cells.get(at).map_or_else(String::new, |number| format!("{:020}", number.cast_unsigned() ^ (1 << 63)))
        }
        _ => match cell(cells, at) {
            Value::Text(text) => text,
            Value::Number(number) => tapeline_invoke::json(&number),
            Value::Boolean(value) => value.to_string(),
            Value::Integer(_) | Value::Null => String::new(),
        },
    }
}

/// Whether DynamoDB has such a number.
fn is_in_range(number: f64) -> bool {
    number == 0.0 || (1e-129..1e125).contains(&number.abs())
}

fn row(rows: &contract::Rows, at: usize) -> Item {
    let column = |column: &contract::Column| (column.name.clone(), attribute(&cell(&column.cells, at)));
    rows.columns.iter().map(column).collect()
}

fn attribute(value: &Value) -> AttributeValue {
    match value {
        Value::Null => AttributeValue::Null(true),
        Value::Boolean(value) => AttributeValue::Bool(*value),
        Value::Integer(number) => AttributeValue::N(number.to_string()),
        // As in a query: with at most 15 digits; what is no number is nothing.
        Value::Number(number) => match tapeline_invoke::json(number) {
            text if text == "null" => AttributeValue::Null(true),
            text if is_in_range(number.0) => AttributeValue::N(text),
            text => AttributeValue::S(text),
        },
        Value::Text(text) => AttributeValue::S(text.clone()),
    }
}

#[cfg(test)]
mod tests {
    use tapeline_invoke::contract::{Column, Texts, TimeUnit};

    use super::*;

    fn bars() -> contract::Rows {
        let column = |name: &str, cells| Column { name: name.to_owned(), cells };
        contract::Rows {
            table: "bars".to_owned(),
            key_columns: 3,
            columns: vec![
                column("symbol", Cells::Texts(Texts { ends: vec![3, 6], bytes: b"BTCBTC".to_vec() })),
                column("start", Cells::Times((vec![0, 60_000_000_000], TimeUnit::Seconds))),
                column("id", Cells::Integers(vec![-1, 1])),
                column("open", Cells::Numbers(vec![61_837.63, f64::NAN])),
            ],
        }
    }

    #[test]
    fn keys_are_in_the_order_of_their_values() {
        let keys: Vec<_> = (0..2).map(|at| key(&bars(), at)).collect();
        assert_eq!(keys[0].0, "bars/BTC");
        assert_eq!(keys[0].1, "1970-01-01T00:00:00.000000000Z/09223372036854775807");
        assert!(keys[0].1 < keys[1].1);
        let integers = Cells::Integers(vec![i64::MIN, -5, 0, 5, i64::MAX]);
        let texts: Vec<_> = (0..5).map(|at| key_text(&integers, at)).collect();
        assert!(texts.is_sorted());
        assert_eq!(escaped("a/b%"), "a%2Fb%25");
    }

    #[test]
    fn a_row_has_its_columns() {
        let row = row(&bars(), 1);
        assert_eq!(row["start"].as_s().unwrap(), "1970-01-01T00:01:00Z");
        assert_eq!(row["id"].as_n().unwrap(), "1");
        assert!(row["open"].is_null());
        assert_eq!(super::row(&bars(), 0)["open"].as_n().unwrap(), "61837.63");
        let number = |number| attribute(&Value::Number(tapeline_events::Number(number)));
        assert!(number(1e-130).is_s() && number(-1e126).is_s() && number(0.0).is_n() && number(-1e100).is_n());
    }
}
