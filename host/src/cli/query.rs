//! `tapeline query`: rows of a table.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Seek as _, Write as _},
};

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
    error::{Context as _, Error, Result},
    store::{Query, SqliteStore, Store as _, Value},
};

/// Write the rows of a table, while a pipeline runs or not
#[derive(Args)]
#[command(after_help = "\
Without --format it is a table on a terminal, and CSV otherwise. With --aws columns are in the order of their names, all that
any of the rows has, and nothing is written before the last row is read; without --symbol all rows of all tables are read then,
and AWS is paid for that.

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
        let mut spool = Spool::new()?;
        let exit = AwsProgram::find()?.lines(&line, |row: Row| spool.push(&row))?;
        if exit == Exit::Fine {
            spool.write(rows)?;
        }
        Ok(exit)
    }
}

type Row = Map<String, serde_json::Value>;

/// Rows that wait in a file until the last of them is known, and with it all columns: a row names those that it has, and
/// another version of the writer may have given others.
struct Spool {
    file: BufWriter<File>,
    names: BTreeSet<String>,
}

const SPOOLING: &str = "keep rows in a temporary file";

impl Spool {
    fn new() -> Result<Self> {
        let file = tempfile::tempfile().doing(|| SPOOLING.to_owned())?;
        Ok(Self { file: BufWriter::new(file), names: BTreeSet::new() })
    }

    fn push(&mut self, row: &Row) -> Result<()> {
        for name in row.keys() {
            if !self.names.contains(name) {
                self.names.insert(name.clone());
            }
        }
        serde_json::to_writer(&mut self.file, row).map_err(std::io::Error::from).doing(|| SPOOLING.to_owned())?;
        self.file.write_all(b"\n").doing(|| SPOOLING.to_owned())
    }

    /// All of them, each with all columns, in the order of their names.
    fn write(self, rows: &mut dyn RowWriter) -> Result<()> {
        if self.names.is_empty() {
            return rows.finish_empty();
        }
        let names: Vec<String> = self.names.into_iter().collect();
        let mut file = self.file.into_inner().map_err(|error| error.into_error()).doing(|| SPOOLING.to_owned())?;
        file.rewind().doing(|| SPOOLING.to_owned())?;
        rows.columns(&names)?;
        for line in BufReader::new(file).lines() {
            let line = line.doing(|| SPOOLING.to_owned())?;
            let mut row: Row =
                serde_json::from_str(&line).map_err(std::io::Error::from).doing(|| SPOOLING.to_owned())?;
            let cells: Vec<Value> = names.iter().map(|name| row.remove(name).map_or(Value::Null, value)).collect();
            rows.row(&cells)?;
        }
        rows.finish()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn written(rows: &[serde_json::Value], format: Format) -> String {
        let mut spool = Spool::new().unwrap();
        rows.iter().for_each(|row| spool.push(row.as_object().unwrap()).unwrap());
        let mut out = Vec::new();
        spool.write(&mut *format.writer(&mut out)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_those_of_all_rows() {
        let rows = [
            serde_json::json!({ "symbol": "A", "price": 61837.63 }),
            serde_json::json!({ "symbol": "B", "is_final": true, "id": 3_735_683_259_u64 }),
        ];
        let expected = "id,is_final,price,symbol\n,,61837.63,A\n3735683259,true,,B\n";
        assert_eq!(written(&rows, Format::Csv), expected);
        let json: serde_json::Value = serde_json::from_str(&written(&rows, Format::Json)).unwrap();
        assert_eq!(json[0], serde_json::json!({ "id": null, "is_final": null, "price": 61837.63, "symbol": "A" }));
        assert_eq!(written(&[], Format::Csv), "");
        assert_eq!(written(&[], Format::Json).trim(), "[]");
    }
}
