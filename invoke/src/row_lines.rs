//! Rows and appends of a writer as JSON lines.

use std::borrow::Cow;

use serde::Serialize;
use tapeline_events::{Number, TextColumn, format_time};

use crate::{
    Value,
    batch::Breach,
    contract::{Append, Cells, Column, Rows},
};

/// Number of rows.
///
/// # Errors
/// When the columns differ in length.
pub fn row_count(rows: &Rows) -> Result<usize, Breach> {
    let count = rows.columns.first().map_or(0, |column| cell_count(&column.cells));
    if rows.columns.iter().any(|column| cell_count(&column.cells) != count) {
        return Err(Breach(format!("the columns of rows for table {:?} differ in length", rows.table)));
    }
    Ok(count)
}

/// Writes each row as a line; none of rows whose columns differ in length.
pub fn write_rows(rows: &Rows, lines: &mut Vec<u8>) {
    let count = row_count(rows).unwrap_or_default();
    let head = format!(r#"{{"kind":"row","table":{},"row":{{"#, json(&rows.table));
    let keys: Vec<String> = rows.columns.iter().map(|column| json(&column.name)).collect();
    for at in 0..count {
        lines.extend_from_slice(head.as_bytes());
        for (number, (key, Column { cells, .. })) in keys.iter().zip(&rows.columns).enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let cell = format!("{comma}{key}:{}", json(&cell(cells, at)));
            lines.extend_from_slice(cell.as_bytes());
        }
        lines.extend_from_slice(b"}}\n");
    }
}

/// Number of cells of a column.
pub fn cell_count(cells: &Cells) -> usize {
    match cells {
        Cells::Texts(texts) => texts.count(),
        Cells::Integers(cells) | Cells::Times((cells, _)) => cells.len(),
        Cells::Numbers(cells) => cells.len(),
        Cells::Booleans(cells) => cells.len(),
    }
}

/// The cell at `at`; null where there is none.
pub fn cell(cells: &Cells, at: usize) -> Value {
    match cells {
        Cells::Texts(texts) => Value::Text(texts.text(at).to_owned()),
        Cells::Integers(cells) => cells.get(at).map_or(Value::Null, |cell| Value::Integer(*cell)),
        Cells::Numbers(cells) => cells.get(at).map_or(Value::Null, |cell| Value::Number(Number(*cell))),
        Cells::Times((cells, unit)) => {
            cells.get(at).map_or(Value::Null, |cell| Value::Text(format_time(*cell, (*unit).into())))
        }
        Cells::Booleans(cells) => cells.get(at).map_or(Value::Null, |cell| Value::Boolean(*cell != 0)),
    }
}

#[derive(Serialize)]
struct AppendLine<'a> {
    kind: &'static str,
    path: &'a str,
    header: Cow<'a, str>,
    text: Cow<'a, str>,
}

/// Writes what is put at the end of an object as a line.
pub fn write_append(append: &Append, lines: &mut Vec<u8>) {
    let line = AppendLine {
        kind: "append",
        path: &append.path,
        header: String::from_utf8_lossy(&append.header),
        text: String::from_utf8_lossy(&append.bytes),
    };
    lines.extend_from_slice(json(&line).as_bytes());
    lines.push(b'\n');
}

/// What can always be written, as JSON.
pub fn json<T: Serialize + ?Sized>(value: &T) -> String {
    // Texts, numbers and structs of them can always be written.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_appends_are_lines() {
        let column = |name: &str, cells| Column { name: name.to_owned(), cells };
        let columns = vec![
            column("price", Cells::Numbers(vec![61837.63, f64::NAN])),
            column("time", Cells::Times((vec![0, 1], crate::contract::TimeUnit::Seconds))),
            column("final", Cells::Booleans(vec![1, 0])),
        ];
        let mut rows = Rows { table: "bars".to_owned(), key_columns: 1, columns };
        let mut lines = Vec::new();
        write_rows(&rows, &mut lines);
        let append = Append { path: "a.csv".to_owned(), header: b"x\n".to_vec(), bytes: b"1\n".to_vec() };
        write_append(&append, &mut lines);
        let lines = String::from_utf8(lines).unwrap();
        let expected = r#"{"kind":"row","table":"bars","row":{"price":61837.63,"time":"1970-01-01T00:00:00Z","final":true}}
{"kind":"row","table":"bars","row":{"price":null,"time":"1970-01-01T00:00:00Z","final":false}}
{"kind":"append","path":"a.csv","header":"x\n","text":"1\n"}
"#;
        assert_eq!(lines, expected);
        rows.columns.push(column("odd", Cells::Integers(vec![1])));
        assert!(row_count(&rows).is_err());
    }
}
