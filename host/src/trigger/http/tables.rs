//! Rows out of tables, in the format that a client asks for.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serializer, ser::SerializeMap};

use super::{
    Api,
    admit::{Parameters, limit, time},
    problem::{Problem, What},
    stages::NDJSON,
};
use crate::{
    error::{Error, Kind, Result},
    store::{Query, RowSink, Store, Value},
};

/// Rows of an answer when the client does not say.
const ROWS: u64 = 1_000;
/// Rows of an answer: some 20 MB, which are in memory at once. Whoever wants more asks for one time after the other.
const ROWS_MAX: u64 = 100_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    symbol: Option<String>,
    from: Option<String>,
    to: Option<String>,
    format: Option<Format>,
    limit: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    Csv,
    #[default]
    Json,
    Ndjson,
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<String>>, Problem> {
    api.reader.ask(What::Unavailable, |store| store.tables()).await.map(Json)
}

pub(super) async fn query(
    State(api): State<Arc<Api>>,
    Path(table): Path<String>,
    Parameters(question): Parameters<Question>,
) -> Result<Response, Problem> {
    let query = Query {
        table,
        symbol: question.symbol,
        from: time("from", question.from.as_deref())?,
        to: time("to", question.to.as_deref())?,
        limit: Some(limit(question.limit, ROWS, ROWS_MAX)?),
    };
    let format = question.format.unwrap_or_default();
    let answer = move |store: &_| {
        let mut writer = Writer::new(format);
        Store::query(store, &query, &mut writer)?;
        writer.finish()
    };
    let bytes = api.reader.ask(What::UnknownTable, answer).await?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], bytes).into_response())
}

impl Format {
    const fn content_type(self) -> HeaderValue {
        match self {
            Self::Csv => HeaderValue::from_static("text/csv; charset=utf-8; header=present"),
            Self::Json => HeaderValue::from_static("application/json"),
            Self::Ndjson => NDJSON,
        }
    }
}

/// Writes rows as text.
enum Writer {
    Csv(Box<csv::Writer<Vec<u8>>>),
    /// Objects, with what stands between two of them; an array has brackets around them.
    Objects {
        format: Format,
        columns: Vec<String>,
        bytes: Vec<u8>,
    },
}

impl Writer {
    fn new(format: Format) -> Self {
        match format {
            Format::Csv => Self::Csv(Box::new(csv::Writer::from_writer(Vec::new()))),
            format => Self::Objects { format, columns: Vec::new(), bytes: Vec::new() },
        }
    }

    fn finish(self) -> Result<Vec<u8>> {
        match self {
            Self::Csv(writer) => writer.into_inner().map_err(|error| write_error(error.into_error())),
            Self::Objects { format: Format::Json, bytes, .. } => {
                let end: &[u8] = if bytes.is_empty() { b"[]\n" } else { b"\n]\n" };
                Ok([&bytes, end].concat())
            }
            Self::Objects { mut bytes, .. } => {
                if !bytes.is_empty() {
                    bytes.push(b'\n');
                }
                Ok(bytes)
            }
        }
    }
}

impl RowSink for Writer {
    fn columns(&mut self, names: &[String]) -> Result<()> {
        match self {
            Self::Csv(writer) => writer.write_record(names).map_err(write_error),
            Self::Objects { columns, .. } => {
                columns.extend_from_slice(names);
                Ok(())
            }
        }
    }

    fn row(&mut self, values: &[Value]) -> Result<()> {
        match self {
            Self::Csv(writer) => {
                values.iter().try_for_each(|value| write_field(writer, value)).map_err(write_error)?;
                writer.write_record(None::<&[u8]>).map_err(write_error)
            }
            Self::Objects { format, columns, bytes } => {
                let is_first = bytes.is_empty();
                bytes.extend_from_slice(match format {
                    Format::Json if is_first => b"[\n",
                    Format::Json => b",\n",
                    _ if is_first => b"",
                    _ => b"\n",
                });
                write_object(columns, values, bytes).map_err(write_error)
            }
        }
    }
}

fn write_field(writer: &mut csv::Writer<Vec<u8>>, value: &Value) -> csv::Result<()> {
    match value {
        Value::Null => writer.write_field(""),
        Value::Boolean(value) => writer.write_field(if *value { "true" } else { "false" }),
        Value::Integer(value) => writer.write_field(value.to_string()),
        Value::Number(value) => writer.write_field(value.to_string()),
        Value::Text(text) => writer.write_field(text),
    }
}

fn write_object(columns: &[String], values: &[Value], bytes: &mut Vec<u8>) -> serde_json::Result<()> {
    let mut serializer = serde_json::Serializer::new(bytes);
    let mut object = serializer.serialize_map(Some(columns.len()))?;
    for (column, value) in columns.iter().zip(values) {
        object.serialize_entry(column, value)?;
    }
    object.end()
}

fn write_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::caused(Kind::Internal, "write rows as text", error)
}

#[cfg(test)]
mod tests {
    use tapeline_events::Number;

    use super::*;

    fn written(format: Format, rows: usize) -> String {
        let mut writer = Writer::new(format);
        writer.columns(&["symbol".to_owned(), "price".to_owned(), "final".to_owned()]).unwrap();
        for row in 0..rows {
            let price = if row == 0 { Value::Number(Number(61837.63)) } else { Value::Null };
            writer.row(&[Value::Text("A,B".to_owned()), price, Value::Boolean(row == 0)]).unwrap();
        }
        String::from_utf8(writer.finish().unwrap()).unwrap()
    }

    #[test]
    fn rows_are_written_in_each_format() {
        assert_eq!(written(Format::Csv, 2), "symbol,price,final\n\"A,B\",61837.63,true\n\"A,B\",,false\n");
        let objects =
            [r#"{"symbol":"A,B","price":61837.63,"final":true}"#, r#"{"symbol":"A,B","price":null,"final":false}"#];
        assert_eq!(written(Format::Ndjson, 2), objects.map(|object| format!("{object}\n")).concat());
        assert_eq!(written(Format::Json, 2), format!("[\n{}\n]\n", objects.join(",\n")));
        assert_eq!(
            [Format::Csv, Format::Json, Format::Ndjson].map(|format| written(format, 0)),
            ["symbol,price,final\n", "[]\n", ""]
        );
    }
}
