//! Records that are late or dead, in a table: key `stage` and `at`, the place of the part and the line in it.

use std::collections::HashMap;

use aws_sdk_dynamodb::{Client, primitives::Blob, types::AttributeValue};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Part, REQUESTS_MAX, SinkError};

/// Bytes of a record that is kept as it is: with its reason it must fit into an item, which has 400 KB.
const RECORD_BYTES_MAX: usize = 350_000;

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
        ("at".to_owned(), AttributeValue::S(format!("{}/{at:06}", part.name()))),
    ]);
    // What a stage has put aside is such a line.
    let Ok(Line { fate, reason, event, record }) = serde_json::from_slice(line) else {
        item.insert("record".to_owned(), AttributeValue::B(Blob::new(line)));
        return item;
    };
    item.insert("fate".to_owned(), text(fate));
    item.insert("reason".to_owned(), AttributeValue::S(reason));
    let (name, mut what) = match (event, record) {
        (Some(event), _) => ("event", event.get().to_owned()),
        (None, record) => ("record", record.unwrap_or_default()),
    };
    if what.len() > RECORD_BYTES_MAX {
        item.insert("bytes".to_owned(), AttributeValue::N(what.len().to_string()));
        what.truncate(what.floor_char_boundary(RECORD_BYTES_MAX));
    }
    item.insert(name.to_owned(), AttributeValue::S(what));
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_says_what_and_why() {
        let part = Part { partition: 0, number: 12, from: 3 };
        let line = br#"{"kind":"reject","fate":"dead","reason":"\"bad\"","event":{"kind":"trade"}}"#;
        let letter = item("enrich", 4, line, part);
        let text = |name: &str| letter[name].as_s().unwrap().as_str();
        assert_eq!((text("stage"), text("at")), ("enrich", "000/00000000000000000012/000003/000004"));
        assert_eq!((text("fate"), text("reason"), text("event")), ("dead", "\"bad\"", r#"{"kind":"trade"}"#));
        let record = "ä".repeat(RECORD_BYTES_MAX);
        let line = format!(r#"{{"kind":"reject","fate":"dead","reason":"","record":"{record}"}}"#);
        let letter = item("fetch", 0, line.as_bytes(), part);
        assert_eq!(letter["bytes"].as_n().unwrap(), &record.len().to_string());
        assert!(letter["record"].as_s().unwrap().len() <= RECORD_BYTES_MAX);
    }
}
