//! A row of the table of alarms: how it is named, found and shown.

use std::path::Path;

use serde_json::value::RawValue;
use tapeline_events::{Number, Span};

use super::watch::{Values, Wanted};
use crate::{
    error::{Error, Kind, Result},
    store::{Query, RowSink, SqliteStore, Store as _, Value},
};

/// The table of alarms.
const TABLE: &str = "alarms";

impl Wanted {
    /// Reads what names an alarm: `SYMBOL,WINDOW,TIME` or `SYMBOL,WINDOW,TIME,TRADE_ID`, as CSV. What follows is not
    /// looked at, so that it may be a whole line of `tapeline query alarms --format csv`.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let right = "SYMBOL,WINDOW,TIME[,TRADE_ID], such as BINANCE:BTCUSDT,5m,2024-08-08T23:54:15.621Z,3735683269";
        let mut lines = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
        let fields: Vec<String> = match lines.records().next() {
            Some(Ok(line)) => line.iter().map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        let [symbol, window, time, rest @ ..] = fields.as_slice() else { return Err(format!("expected {right}")) };
        let span = serde_json::from_value::<Span>(window.as_str().into())
            .map_err(|error| format!("{error}; expected {right}"))?;
        let (time, _) = tapeline_events::parse_time(time).map_err(|error| format!("{error}; expected {right}"))?;
        let trade_id = rest.first().filter(|id| !id.is_empty()).cloned();
        Ok(Self { symbol: symbol.clone(), window: span.0, time, trade_id })
    }
}

/// A row of the table of alarms.
pub(super) struct AlarmRow(Vec<(String, Value)>);

impl AlarmRow {
    /// The text of a column, or its integer as text; `None` when it has neither.
    pub(super) fn text(&self, column: &str) -> Option<String> {
        let (_, value) = self.0.iter().find(|(name, _)| name == column)?;
        match value {
            Value::Text(text) => Some(text.clone()),
            Value::Integer(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// As a JSON object, with the columns in their order.
    pub(super) fn line(&self) -> Result<Box<RawValue>> {
        let mut line = String::new();
        for (name, value) in &self.0 {
            let before = if line.is_empty() { '{' } else { ',' };
            let value = serde_json::to_string(value).map_err(not_json)?;
            line.extend([
                before.to_string(),
                serde_json::Value::from(name.as_str()).to_string(),
                ":".to_owned(),
                value,
            ]);
        }
        json(line + "}")
    }

    /// The numbers that it tells.
    pub(super) fn values(&self) -> Values {
        let number = |(name, value): &(String, Value)| match value {
            Value::Number(Number(number)) => Some((name.clone(), *number)),
            _ => None,
        };
        Values(self.0.iter().filter_map(number).collect())
    }
}

#[derive(Default)]
struct Rows {
    columns: Vec<String>,
    rows: Vec<AlarmRow>,
}

impl RowSink for Rows {
    fn columns(&mut self, names: &[String]) -> Result<()> {
        self.columns = names.to_vec();
        Ok(())
    }

    fn row(&mut self, values: &[Value]) -> Result<()> {
        self.rows.push(AlarmRow(self.columns.iter().cloned().zip(values.iter().cloned()).collect()));
        Ok(())
    }
}

/// The one row that is named.
///
/// # Errors
/// `NotFound` when there is none; `Invalid` when there are several, with the ids of their trades.
pub(super) fn find_row(store: &SqliteStore, wanted: &Wanted, data: &Path) -> Result<AlarmRow> {
    let Wanted { symbol, window, time, trade_id } = wanted;
    let mut rows = Rows::default();
    let query = Query {
        table: TABLE.to_owned(),
        symbol: Some(symbol.clone()),
        from: Some(*time),
        to: time.checked_add(1),
        limit: None,
    };
    store.query(&query, &mut rows)?;
    let is_window = |row: &AlarmRow| {
        let text = row.text("window").unwrap_or_default();
        serde_json::from_value::<Span>(text.into()).is_ok_and(|span| span.0 == *window)
    };
    let is_trade = |row: &AlarmRow| trade_id.is_none() || row.text("trade_id") == *trade_id;
    let ids = |rows: &[AlarmRow]| rows.iter().filter_map(|row| row.text("trade_id")).collect::<Vec<_>>().join(", ");
    rows.rows.retain(is_window);
    let there = ids(&rows.rows);
    rows.rows.retain(is_trade);
    let time = tapeline_events::format_time(*time, tapeline_events::Unit::Nanoseconds);
    let named = format!("{symbol}, window {}, at {time}", Span(*window));
    match rows.rows.len() {
        1 => rows.rows.pop().ok_or_else(|| Error::not_found("find the alarm")),
        0 => {
            let trade = trade_id.as_ref().map(|id| format!(", trade {id}")).unwrap_or_default();
            let hint = match trade_id {
                Some(_) if !there.is_empty() => format!("; there is one of trade {there}"),
                Some(id) => id_hint(store, symbol, id)?,
                None => String::new(),
            };
            let data = data.display();
            let message = format!(
                "find an alarm of {named}{trade}: there is none{hint}; `tapeline query alarms --format csv --symbol {symbol} --data {data}` lists them"
            );
            Err(Error::not_found(message))
        }
        count => Err(Error::invalid(format!(
            "tell which of {count} alarms of {named} it is: add the id of its trade, one of {}",
            ids(&rows.rows)
        ))),
    }
}

/// What ids of a symbol look like, where one does not look so.
fn id_hint(store: &SqliteStore, symbol: &str, id: &str) -> Result<String> {
    let mut rows = Rows::default();
    let query = Query { table: TABLE.to_owned(), symbol: Some(symbol.to_owned()), limit: Some(1), ..Query::default() };
    store.query(&query, &mut rows)?;
    let known = rows.rows.first().and_then(|row| row.text("trade_id"));
    let is_number = |id: &str| id.parse::<u64>().is_ok();
    Ok(match known.filter(|known| is_number(known) != is_number(id)) {
        Some(known) => format!("; the id of a trade of {symbol} looks like {known}"),
        None => String::new(),
    })
}

/// A line that is JSON already.
pub(super) fn json(line: String) -> Result<Box<RawValue>> {
    RawValue::from_string(line).map_err(not_json)
}

fn not_json(error: serde_json::Error) -> Error {
    Error::caused(Kind::Internal, "write an explanation as JSON", error)
}
