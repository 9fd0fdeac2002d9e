//! Records that are late or dead, in a table: key `stage` and `at`, the place of the part and the line in it; `fate`, `reason`,
//! and `event` or `record`. Those of a host have `component`, `symbol`, `time`, `origin`, `format` and `received` too, as far as
//! they are known.

use std::collections::HashMap;

use aws_sdk_dynamodb::{Client, primitives::Blob, types::AttributeValue};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Part, REQUESTS_MAX, SinkError};

/// Bytes of a record that is kept as it is: with its reason it must fit into an item, which has 400 KB.
const RECORD_BYTES_MAX: usize = 260_000;
/// Bytes of a reason that is kept, and of each other text but the record.
const REASON_BYTES_MAX: usize = 20_000;

/// A table.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    client: Client,
    table: String,
}

#[derive(Deserialize)]
struct Line<'a> {
    fate: &'a str,
    reason: String,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    record: Option<String>,
    // What a host knows besides.
    component: Option<String>,
    symbol: Option<String>,
    time: Option<String>,
    origin: Option<String>,
    format: Option<String>,
    received: Option<String>,
}

impl DeadLetters {
    /// A table that is there.
    pub const fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Puts lines in that stages have put aside.
    ///
    /// # Errors
    /// When one was not taken.
    pub async fn put(&self, aside: &[(String, Vec<u8>)], part: Part) -> Result<(), SinkError> {
        let lines = aside.iter().flat_map(|(stage, lines)| {
            let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            lines.enumerate().map(move |(at, line)| (stage, at, line))
        });
        let puts = lines.map(|(stage, at, line)| {
            let put = self.client.put_item().table_name(&self.table).set_item(Some(item(stage, at, line, part)));
            async move { put.send().await.map(drop).map_err(|error| SinkError::new("DynamoDB", error)) }
        });
        let puts: Vec<_> = puts.collect();
        stream::iter(puts).buffer_unordered(REQUESTS_MAX).try_collect().await
    }
}

fn item(stage: &str, at: usize, line: &[u8], part: Part) -> HashMap<String, AttributeValue> {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let mut item = HashMap::from([
        ("stage".to_owned(), text(stage)),
        ("at".to_owned(), AttributeValue::S(format!("{}-{at:06}", part.name()))),
    ]);
    // What a stage has put aside is such a line.
    let Ok(Line { fate, reason, event, record, component, symbol, time, origin, format, received }) =
        serde_json::from_slice(line)
    else {
        item.insert("record".to_owned(), AttributeValue::B(Blob::new(line.get(..RECORD_BYTES_MAX).unwrap_or(line))));
        return item;
    };
    item.insert("fate".to_owned(), text(fate));
    let known = [
        ("component", component),
        ("symbol", symbol),
        ("time", time),
        ("origin", origin),
        ("format", format),
        ("received", received),
    ];
    for (name, value) in known {
        item.extend(value.map(|value| (name.to_owned(), AttributeValue::S(cut(value, REASON_BYTES_MAX)))));
    }
    item.insert("reason".to_owned(), AttributeValue::S(cut(reason, REASON_BYTES_MAX)));
    let (name, what) = match (event, record) {
        (Some(event), _) => ("event", event.get().to_owned()),
        (None, record) => ("record", record.unwrap_or_default()),
    };
    if what.len() > RECORD_BYTES_MAX {
        item.insert("bytes".to_owned(), AttributeValue::N(what.len().to_string()));
    }
    item.insert(name.to_owned(), AttributeValue::S(cut(what, RECORD_BYTES_MAX)));
    item
}

fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_says_what_and_why() {
        let part = Part { partition: 0, step: 12 };
        let line = br#"{"kind":"reject","fate":"dead","reason":"\"bad\"","event":{"kind":"trade"}}"#;
        let letter = item("enrich", 4, line, part);
        let text = |name: &str| letter[name].as_s().unwrap().as_str();
        assert_eq!((text("stage"), text("at")), ("enrich", "000-00000000000000000012-000004"));
        assert_eq!((text("fate"), text("reason"), text("event")), ("dead", "\"bad\"", r#"{"kind":"trade"}"#));
        let known = br#"{"fate":"late","reason":"over","record":"{}","format":"events","time":"2024-08-08T00:00:00Z"}"#;
        let letter = item("dedup", 0, known, part);
        assert_eq!((letter["format"].as_s().unwrap(), letter.contains_key("symbol")), (&"events".to_owned(), false));
        let record = "ä".repeat(RECORD_BYTES_MAX);
        let line = format!(r#"{{"kind":"reject","fate":"dead","reason":"","record":"{record}"}}"#);
        let letter = item("fetch", 0, line.as_bytes(), part);
        assert_eq!(letter["bytes"].as_n().unwrap(), &record.len().to_string());
        assert!(letter["record"].as_s().unwrap().len() <= RECORD_BYTES_MAX);
    }
}
