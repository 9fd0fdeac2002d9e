//! Rows out of tables.

use rusqlite::{
    Connection, Row,
    types::{Value as SqlValue, ValueRef},
};
use tapeline_events::{Number, format_time};

use super::{
    catalog::{Layout, Type, quote},
    tables,
};
use crate::{
    error::{Error, Kind, Result},
    store::{Query, RowSink, Value},
};

/// The column that [`Query::symbol`] is about.
const SYMBOL: &str = "symbol";

/// Gives the rows that a query asks for to `sink`, one at a time.
///
/// # Errors
/// `NotFound` when there is no such table; `Invalid` when it has no column that the query asks by.
pub(super) fn run(conn: &Connection, query: &Query, sink: &mut dyn RowSink) -> Result<()> {
    let missing = || Error::not_found(format!("find a table {:?}", query.table));
    let layout = Layout::find(conn, &query.table)?.ok_or_else(missing)?;
    let (conditions, values) = conditions(&layout, query)?;
    let limit = query.limit.map_or(String::new(), |limit| format!(" LIMIT {}", limit.min(i64::MAX.cast_unsigned())));
    let mut statement = conn.prepare(&(layout.select_sql(&conditions) + &limit))?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    sink.columns(&layout.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>())?;
    let mut cells = Vec::with_capacity(layout.columns.len());
    while let Some(row) = rows.next()? {
        cells.clear();
        read(&layout, row, &mut cells)?;
        sink.row(&cells)?;
    }
    Ok(())
}

fn conditions(layout: &Layout, query: &Query) -> Result<(Vec<String>, Vec<SqlValue>)> {
    let symbol = layout.columns.iter().find(|column| column.name == SYMBOL);
    let time = layout.times().next();
    let asked = [
        ("a column of symbols", symbol, "=", query.symbol.clone().map(SqlValue::Text)),
        ("a column of times", time, ">=", query.from.map(SqlValue::Integer)),
        ("a column of times", time, "<", query.to.map(SqlValue::Integer)),
    ];
    let (mut conditions, mut values) = (Vec::new(), Vec::new());
    for (what, column, comparison, value) in asked {
        let Some(value) = value else { continue };
        let missing = || Error::invalid(format!("find {what} in table {:?}", query.table));
        conditions.push(format!("{} {comparison} ?", quote(&column.ok_or_else(missing)?.name)));
        values.push(value);
    }
    Ok((conditions, values))
}

fn read(layout: &Layout, row: &Row<'_>, cells: &mut Vec<Value>) -> Result<()> {
    let mut digits_at = layout.columns.len();
    for (at, column) in layout.columns.iter().enumerate() {
        let is_time = column.takes == Type::Time;
        let digits = if is_time { row.get::<_, Option<i64>>(digits_at)? } else { None };
        digits_at += usize::from(is_time);
        cells.push(value(column.takes, row.get_ref(at)?, digits)?);
    }
    Ok(())
}

fn value(column: Type, value: ValueRef<'_>, digits: Option<i64>) -> Result<Value> {
    Ok(match (column, value) {
        (_, ValueRef::Null) => Value::Null,
        (Type::Any, ValueRef::Integer(value)) => Value::Integer(value),
        (Type::Any, ValueRef::Text(text)) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        (Type::Number, ValueRef::Real(value)) => Value::Number(Number(value)),
        (Type::Boolean, ValueRef::Integer(value)) => Value::Boolean(value != 0),
        (Type::Time, ValueRef::Integer(ns)) => Value::Text(format_time(ns, tables::unit(digits))),
        _ => return Err(Error::new(Kind::Corrupt, "read a value that is not of its column's type")),
    })
}
