//! `tapeline query`: rows of a table.

use std::io::Write as _;

use clap::Args;
use serde_json::Map;
use tapeline_events::{Number, Unit, format_time};

use super::{
    DataFolder,
    aws::AwsProgram,
    exit::Exit,
    output, parse_time_arg,
    rows::{Format, RowWriter},
};
use crate::{
    error::{Error, Result},
    store::{Query, SqliteStore, Store as _, Value},
};

/// Write the rows of a table, while a pipeline runs or not
#[derive(Args)]
#[command(after_help = "\
Without --format it is a table on a terminal, and CSV otherwise. With --aws columns are in the order of their names; without
--symbol all rows of all tables are read then, and AWS is paid for that.

Examples:
  tapeline query averages --symbol BINANCE:BTCUSDT --limit 20
  tapeline query trades --from 2024-08-08 --to 2024-08-09T12:00:00Z --format csv > trades.csv
  tapeline query alarms --format json | jq '.[].deviation'
  tapeline query bars --aws tapeline-bitcoin-trades --symbol BINANCE:BTCUSDT --from 2024-08-08")]
pub(super) struct QueryCommand {
    /// Name of the table
    table: String,
    #[command(flatten)]
    data: DataFolder,
    /// Name of a pipeline's stack on AWS, instead of a folder: tapeline-PIPELINE
    #[arg(long, value_name = "STACK", conflicts_with = "path")]
    aws: Option<String>,
    /// Only this symbol
    #[arg(long)]
    symbol: Option<String>,
    /// Only rows of this time and later: a day, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_time_arg)]
    from: Option<i64>,
    /// Only rows before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time_arg)]
    to: Option<i64>,
    /// At most so many rows
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// How to write them
    #[arg(long)]
    format: Option<Format>,
}

impl QueryCommand {
    pub(super) fn run(self) -> Result<Exit> {
        let mut out = output::lock();
        let mut rows = Format::or_usual(self.format).writer(&mut out);
        let exit = match &self.aws {
            None => self.of_data(&mut *rows)?,
            Some(stack) => self.of_stack(stack, &mut *rows)?,
        };
        drop(rows);
        out.flush()?;
        Ok(exit)
    }

    fn of_data(&self, rows: &mut dyn RowWriter) -> Result<Exit> {
        let store = SqliteStore::open_reader(&self.data.path)?;
        check_table(&self.table, &store.tables()?)?;
        let (table, symbol) = (self.table.clone(), self.symbol.clone());
        store.query(&Query { table, symbol, from: self.from, to: self.to, limit: self.limit }, rows)?;
        rows.finish()?;
        Ok(Exit::Fine)
    }

    fn of_stack(&self, stack: &str, rows: &mut dyn RowWriter) -> Result<Exit> {
        let mut line = vec!["rows".to_owned(), stack.to_owned(), self.table.clone()];
        let time = |time| format_time(time, Unit::Nanoseconds);
        line.extend(self.symbol.iter().map(|symbol| format!("--symbol={symbol}")));
        line.extend(self.from.map(|from| format!("--from={}", time(from))));
        line.extend(self.to.map(|to| format!("--to={}", time(to))));
        line.extend(self.limit.map(|limit| format!("--limit={limit}")));
        let mut names: Vec<String> = Vec::new();
        let exit = AwsProgram::find()?.lines(&line, |mut row: Map<String, serde_json::Value>| {
            if names.is_empty() {
                names = row.keys().cloned().collect();
                rows.columns(&names)?;
            }
            let cells: Vec<Value> = names.iter().map(|name| row.remove(name).map_or(Value::Null, value)).collect();
            rows.row(&cells)
        })?;
        match (exit, names.is_empty()) {
            (Exit::Fine, true) => rows.finish_empty()?,
            (Exit::Fine, false) => rows.finish()?,
            _ => {}
        }
        Ok(exit)
    }
}

/// A value of a row as JSON.
fn value(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Boolean(value),
        serde_json::Value::String(text) => Value::Text(text),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Value::Integer(number),
            (None, number) => number.map_or(Value::Null, |number| Value::Number(Number(number))),
        },
        other => Value::Text(other.to_string()),
    }
}

fn check_table(table: &str, tables: &[String]) -> Result<()> {
    if tables.iter().any(|known| known == table) {
        return Ok(());
    }
    let known =
        if tables.is_empty() { "there is none yet".to_owned() } else { format!("there are {}", tables.join(", ")) };
    Err(Error::not_found(format!("find table {table:?}: {known}")))
}
