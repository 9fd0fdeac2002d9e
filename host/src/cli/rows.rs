//! Rows as a table for people, as CSV, or as JSON: given out one by one, so that any number needs little memory.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, Table, presets};

use super::output::visible;
use crate::{
    error::Result,
    store::{RowSink, Value},
};

/// Rows that a table for people lays out together; behind them its head is printed again, as wide as then needed.
const PAGE_ROWS: usize = 500;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// A line of names, then a line for each row
    Csv,
    /// An array of objects
    Json,
}

impl Format {
    /// What is used when nothing is said: for a terminal a table, otherwise CSV.
    pub(super) fn or_usual(format: Option<Self>) -> Self {
        let usual = if super::is_output_terminal() { Self::Table } else { Self::Csv };
        format.unwrap_or(usual)
    }

    /// What writes rows in this format to `out`.
    pub(super) fn writer<'a>(self, out: &'a mut dyn Write) -> Box<dyn RowWriter + 'a> {
        match self {
            Self::Table => Box::new(TableWriter { out, table: Table::new(), names: Vec::new() }),
            Self::Csv => Box::new(CsvWriter { out: csv::Writer::from_writer(out), field: String::new() }),
            Self::Json => Box::new(JsonWriter { out, keys: Vec::new(), is_first: true }),
        }
    }
}

/// Writes rows.
pub(super) trait RowWriter: RowSink {
    /// Writes what comes behind the last row. To be called once, at the end.
    ///
    /// # Errors
    /// When the output fails.
    fn finish(&mut self) -> Result<()>;

    /// Writes that there are no rows, where the columns are not known either, and instead of all else.
    ///
    /// # Errors
    /// When the output fails.
    fn finish_empty(&mut self) -> Result<()> {
        Ok(())
    }
}

struct TableWriter<'a> {
    out: &'a mut dyn Write,
    table: Table,
    names: Vec<String>,
}

impl TableWriter<'_> {
    fn begin_page(&mut self) {
        self.table = Table::new();
        self.table.load_style(presets::UTF8_BORDERS_ONLY).set_header(&self.names);
    }

    fn end_page(&mut self) -> Result<()> {
        for line in self.table.lines() {
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }
}

impl RowSink for TableWriter<'_> {
    fn columns(&mut self, names: &[String]) -> Result<()> {
        self.names = names.to_vec();
        self.begin_page();
        Ok(())
    }

    fn row(&mut self, values: &[Value]) -> Result<()> {
        if self.table.row_count() == PAGE_ROWS {
            self.end_page()?;
            self.begin_page();
        }
        self.table.add_row(values.iter().map(table_cell));
        Ok(())
    }
}

impl RowWriter for TableWriter<'_> {
    fn finish(&mut self) -> Result<()> {
        self.end_page()
    }
}

fn table_cell(value: &Value) -> Cell {
    let mut text = String::new();
    push_text(&mut text, value);
    let side = match value {
        Value::Integer(_) | Value::Number(_) => CellAlignment::Right,
        Value::Null | Value::Boolean(_) | Value::Text(_) => CellAlignment::Left,
    };
    Cell::new(visible(&text)).set_alignment(side)
}

struct CsvWriter<'a> {
    out: csv::Writer<&'a mut dyn Write>,
    field: String,
}

impl RowSink for CsvWriter<'_> {
    fn columns(&mut self, names: &[String]) -> Result<()> {
        Ok(self.out.write_record(names).map_err(csv_error)?)
    }

    fn row(&mut self, values: &[Value]) -> Result<()> {
        for value in values {
            self.field.clear();
            push_text(&mut self.field, value);
            self.out.write_field(&self.field).map_err(csv_error)?;
        }
        Ok(self.out.write_record(None::<&[u8]>).map_err(csv_error)?)
    }
}

impl RowWriter for CsvWriter<'_> {
    fn finish(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

fn csv_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("write CSV: {other:?}")),
    }
}

struct JsonWriter<'a> {
    out: &'a mut dyn Write,
    /// `"name":` of each column.
    keys: Vec<String>,
    is_first: bool,
}

impl RowSink for JsonWriter<'_> {
    fn columns(&mut self, names: &[String]) -> Result<()> {
        self.keys = names.iter().map(|name| format!("{}:", serde_json::Value::from(name.as_str()))).collect();
        Ok(self.out.write_all(b"[")?)
    }

    fn row(&mut self, values: &[Value]) -> Result<()> {
        let mut before = if std::mem::take(&mut self.is_first) { "\n{" } else { ",\n{" };
        for (key, value) in self.keys.iter().zip(values) {
            write!(self.out, "{before}{key}")?;
            serde_json::to_writer(&mut *self.out, value).map_err(io::Error::from)?;
            before = ",";
        }
        Ok(self.out.write_all(b"}")?)
    }
}

impl RowWriter for JsonWriter<'_> {
    fn finish(&mut self) -> Result<()> {
        Ok(self.out.write_all(if self.is_first { b"]\n" } else { b"\n]\n" })?)
    }

    fn finish_empty(&mut self) -> Result<()> {
        Ok(self.out.write_all(b"[]\n")?)
    }
}

fn push_text(text: &mut String, value: &Value) {
    // Writing to a text does not fail.
    let _ = match value {
        Value::Null => Ok(()),
        Value::Boolean(value) => write!(text, "{value}"),
        Value::Integer(value) => write!(text, "{value}"),
        Value::Number(value) => write!(text, "{value}"),
        Value::Text(value) => text.write_str(value),
    };
}

#[cfg(test)]
mod tests {
    use tapeline_events::Number;

    use super::*;

    fn written(format: Format, rows: &[[Value; 3]]) -> String {
        let mut out = Vec::new();
        let mut writer = format.writer(&mut out);
        writer.columns(&["symbol".to_owned(), "price".to_owned(), "is \"odd\"".to_owned()]).unwrap();
        for row in rows {
            writer.row(row).unwrap();
        }
        writer.finish().unwrap();
        drop(writer);
        String::from_utf8(out).unwrap()
    }

    fn rows() -> [[Value; 3]; 2] {
        [
            [Value::Text("A,B".to_owned()), Value::Number(Number(61_837.630_000_000_005)), Value::Boolean(true)],
            [Value::Text("\u{1b}C".to_owned()), Value::Integer(2), Value::Null],
        ]
    }

    #[test]
    fn csv_quotes_what_it_must() {
        let text = written(Format::Csv, &rows());
        assert_eq!(text, "symbol,price,\"is \"\"odd\"\"\"\n\"A,B\",61837.63,true\n\u{1b}C,2,\n");
        assert_eq!(written(Format::Csv, &[]), "symbol,price,\"is \"\"odd\"\"\"\n");
    }

    #[test]
    fn json_is_an_array_of_objects() {
        let text = written(Format::Json, &rows());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!([
            { "symbol": "A,B", "price": 61837.63, "is \"odd\"": true },
            { "symbol": "\u{1b}C", "price": 2, "is \"odd\"": null },
        ]);
        assert_eq!(value, expected, "{text}");
        assert_eq!(written(Format::Json, &[]), "[]\n");
    }

    #[test]
    fn a_table_has_its_head_on_every_page() {
        let text = written(Format::Table, &rows());
        assert!(text.contains("61837.63") && text.contains("\\u{1b}C"), "{text}");
        let row = rows()[1].clone();
        let text = written(Format::Table, &vec![row; PAGE_ROWS + 1]);
        assert_eq!(text.matches("symbol").count(), 2);
        assert_eq!(text.matches("\\u{1b}C").count(), PAGE_ROWS + 1);
    }
}
