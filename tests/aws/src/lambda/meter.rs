//! What a function asks of AWS, in the units that AWS takes money for. Units are counted by AWS' own rules from what is
//! asked and answered, because a local AWS does not count them.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::{Method, http::request::Parts};
use percent_encoding::percent_decode;
use serde_json::{Map, Value};

use super::way::{DYNAMODB, TARGET};

/// SQS and SNS count requests in chunks of so many bytes.
pub const CHUNK_BYTES: u64 = 64 << 10;
/// DynamoDB counts reads in units of so many bytes, which a strongly consistent read costs whole,
const READ_UNIT_BYTES: u64 = 4 << 10;
/// and writes in units of so many.
const WRITE_UNIT_BYTES: u64 = 1 << 10;
/// What SQS is asked with by our functions.
const SEND: &str = "AmazonSQS.SendMessage";
/// What the keys of our tables are called.
const KEYS: [&str; 6] = ["key", "table_symbol", "stage", "at", "stage_symbol", "day_partition"];

/// What was asked, and what of it AWS counts.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Requests.
    pub requests: u64,
    /// Units by table.
    pub tables: BTreeMap<String, Units>,
    /// Chunks of messages that were sent.
    pub sent_chunks: u64,
    /// Objects that were put into buckets.
    pub objects_put: u64,
    /// Chunks of messages to a topic.
    pub told_chunks: u64,
    /// Time in which a request was under way.
    pub busy: Duration,
}

/// What was read from and written to a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Read units.
    pub read: u64,
    /// Write units.
    pub written: u64,
}

/// Bytes of the items of all tables: what an item is replaced by, or whether it is deleted, is paid by its size too.
#[derive(Debug, Default)]
pub struct Items(Mutex<HashMap<(String, String), u64>>);

/// Counts what is asked on a way.
#[derive(Debug)]
pub struct Meter {
    items: Arc<Items>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counted: Counted,
    under_way: u64,
    since: Option<Instant>,
}

impl Meter {
    /// Nothing is counted yet; of items it is known what was written on any way with the same ones.
    pub fn new(items: Arc<Items>) -> Arc<Self> {
        Arc::new(Self { items, state: Mutex::default() })
    }

    /// What was counted since this was asked last.
    pub fn take(&self) -> Counted {
        mem::take(&mut self.state().counted)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    /// With what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.sent_chunks += other.sent_chunks;
        self.objects_put += other.objects_put;
        self.told_chunks += other.told_chunks;
        self.busy += other.busy;
        for (table, units) in &other.tables {
            self.units(table).read += units.read;
            self.units(table).written += units.written;
        }
    }

    /// What was read from and written to a table.
    pub fn of_table(&self, table: &str) -> Units {
        self.tables.get(table).copied().unwrap_or_default()
    }

    fn units(&mut self, table: &str) -> &mut Units {
        self.tables.entry(table.to_owned()).or_default()
    }
}

/// A request that is under way, until this is dropped.
pub(super) struct Open {
    meter: Arc<Meter>,
    asked: Asked,
}

/// What is asked.
enum Asked {
    /// Of DynamoDB.
    Table { operation: String, request: Value },
    /// Of SQS.
    Send { bytes: u64 },
    /// Of SNS.
    Tell { bytes: u64 },
    /// Of S3.
    Put,
    /// What we do not count.
    Other,
}

impl Open {
    /// A request that has come.
    pub(super) fn new(meter: &Arc<Meter>, head: &Parts, body: &[u8]) -> Self {
        let mut state = meter.state();
        state.under_way += 1;
        state.since.get_or_insert_with(Instant::now);
        drop(state);
        Self { meter: Arc::clone(meter), asked: Asked::read(head, body) }
    }

    /// Counts it, with what was answered.
    pub(super) fn answered(self, answer: &[u8]) {
        let mut state = self.meter.state();
        state.counted.requests += 1;
        match &self.asked {
            Asked::Table { operation, request } => {
                let (read, written) = self.meter.items.units(operation, request, answer);
                let units = state.counted.units(table_of(request));
                units.read += read;
                units.written += written;
            }
            Asked::Send { bytes } => state.counted.sent_chunks += bytes.div_ceil(CHUNK_BYTES).max(1),
            Asked::Tell { bytes } => state.counted.told_chunks += bytes.div_ceil(CHUNK_BYTES).max(1),
            Asked::Put => state.counted.objects_put += 1,
            Asked::Other => {}
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.meter.state();
        state.under_way = state.under_way.saturating_sub(1);
        if state.under_way == 0 {
            let busy = state.since.take().map_or(Duration::ZERO, |since| since.elapsed());
            state.counted.busy += busy;
        }
    }
}

/// The table that is asked; of a batch the only one.
fn table_of(request: &Value) -> &str {
    let of_batch = || request["RequestItems"].as_object()?.keys().next().map(String::as_str);
    request["TableName"].as_str().or_else(of_batch).unwrap_or_default()
}

impl Asked {
    fn read(head: &Parts, body: &[u8]) -> Self {
        let json = || serde_json::from_slice::<Value>(body).unwrap_or_default();
        let target = head.headers.get(TARGET).and_then(|target| target.to_str().ok());
        match target {
            Some(SEND) => Self::Send { bytes: json()["MessageBody"].as_str().map_or(0, str::len) as u64 },
            Some(target) => match target.strip_prefix(DYNAMODB) {
                Some(operation) => Self::Table { operation: operation.to_owned(), request: json() },
                None => Self::Other,
            },
            None if head.method == Method::PUT => Self::Put,
            None if head.method == Method::POST && body.starts_with(b"Action=Publish&") => {
                let message = body.split(|byte| *byte == b'&').find_map(|field| field.strip_prefix(b"Message="));
                Self::Tell { bytes: message.map_or(0, |message| percent_decode(message).count() as u64) }
            }
            None => Self::Other,
        }
    }
}

impl Items {
    /// Read and write units of a request
    /// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html>). One whose condition
    /// was not met is paid as well.
    fn units(&self, operation: &str, request: &Value, answer: &[u8]) -> (u64, u64) {
        let key = |of: &Value| {
            let texts = KEYS.iter().filter_map(|name| of[*name]["S"].as_str());
            (request["TableName"].as_str().unwrap_or_default().to_owned(), texts.collect::<Vec<_>>().join("\n"))
        };
        let write = |of: &Value, bytes: Option<u64>| {
            let mut items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let before = match bytes {
                Some(bytes) => items.insert(key(of), bytes),
                None => items.remove(&key(of)),
            };
            let larger = before.unwrap_or_default().max(bytes.unwrap_or_default());
            (0, larger.div_ceil(WRITE_UNIT_BYTES).max(1))
        };
        match operation {
            "GetItem" => {
                let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
                (answer["Item"].as_object().map_or(0, item_bytes).div_ceil(READ_UNIT_BYTES).max(1), 0)
            }
            // Each item is rounded up by itself, and one that is not there is paid, too.
            "BatchGetItem" => {
                let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
                let table = table_of(request);
                let count = |of: &Value| of["Keys"].as_array().map_or(0, Vec::len) as u64;
                let asked = count(&request["RequestItems"][table]) - count(&answer["UnprocessedKeys"][table]);
                let found = answer["Responses"][table].as_array().map(Vec::as_slice).unwrap_or_default();
                let units = |item: &Value| item.as_object().map_or(0, item_bytes).div_ceil(READ_UNIT_BYTES).max(1);
                (found.iter().map(units).sum::<u64>() + asked.saturating_sub(found.len() as u64), 0)
            }
            "PutItem" => write(&request["Item"], Some(request["Item"].as_object().map_or(0, item_bytes))),
            "DeleteItem" => write(&request["Key"], None),
            // Of all that is told, which is more than what becomes of the item: its values are small.
            "UpdateItem" => {
                let key = request["Key"].as_object().map_or(0, item_bytes);
                let names = request["ExpressionAttributeNames"].as_object();
                let names: usize =
                    names.into_iter().flatten().filter_map(|(_, name)| name.as_str()).map(str::len).sum();
                let values = request["ExpressionAttributeValues"].as_object();
                let values: u64 = values.into_iter().flatten().map(|(_, value)| value_bytes(value)).sum();
                write(&request["Key"], Some(key + names as u64 + values))
            }
            _ => (0, 0),
        }
    }
}

/// Bytes of an item: its names and values
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>).
fn item_bytes(item: &Map<String, Value>) -> u64 {
    item.iter().map(|(name, value)| name.len() as u64 + value_bytes(value)).sum()
}

fn value_bytes(value: &Value) -> u64 {
    let Some((kind, value)) = value.as_object().and_then(|value| value.iter().next()) else { return 0 };
    match (kind.as_str(), value) {
        ("S", Value::String(text)) => text.len() as u64,
        ("N", Value::String(number)) => number_bytes(number),
        // In JSON it is base64.
        ("B", Value::String(text)) => {
            let letters = text.trim_end_matches('=').len() as u64;
            letters * 3 / 4
        }
        // Three bytes, and one for each entry.
        ("M", Value::Object(map)) => 3 + map.len() as u64 + item_bytes(map),
        ("L", Value::Array(list)) => 3 + list.iter().map(|value| 1 + value_bytes(value)).sum::<u64>(),
        _ => 1,
    }
}

/// A byte for two digits that count, and one more, or two for what is below 0.
fn number_bytes(number: &str) -> u64 {
    let digits = number.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    let count = digits.trim_matches('0').len() as u64;
    count.div_ceil(2) + 1 + u64::from(number.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_item_is_as_large_as_aws_says() {
        let item = json!({
            "key": { "S": "ä" },
            "value": { "B": "AAAAAA==" },
            "n": { "N": "-12300.5e7" },
            "m": { "M": { "a": { "NULL": true }, "b": { "L": [{ "BOOL": false }] } } },
        });
        // ä, four bytes, five digits in three bytes with two more, and a map of two.
        let sizes = [3 + 2, 5 + 4, 1 + 3 + 2, 1 + 3 + 2 + (1 + 1) + (1 + 3 + 1 + 1)];
        assert_eq!(item_bytes(item.as_object().unwrap()), sizes.iter().sum::<u64>());
        assert_eq!(number_bytes("0"), 1);
    }

    #[test]
    fn what_is_replaced_or_deleted_is_paid_by_its_size() {
        let items = Items::default();
        let units = |operation, request: Value, answer: &str| items.units(operation, &request, answer.as_bytes());
        let item = |letters: usize| json!({ "key": { "S": "k" }, "value": { "S": "x".repeat(letters) } });
        let put = |letters| json!({ "TableName": "t", "Item": item(letters) });
        let key = || json!({ "TableName": "t", "Key": { "key": { "S": "k" } } });
        assert_eq!(units("PutItem", put(1), ""), (0, 1));
        assert_eq!(units("PutItem", put(3_000), ""), (0, 3));
        assert_eq!(units("PutItem", put(1), ""), (0, 3), "a large one was replaced");
        assert_eq!(units("PutItem", put(2_048), ""), (0, 3));
        assert_eq!(units("DeleteItem", key(), ""), (0, 3));
        assert_eq!(units("DeleteItem", key(), ""), (0, 1), "there is none");
        assert_eq!(units("GetItem", key(), "{}"), (1, 0));
        assert_eq!(units("GetItem", key(), &json!({ "Item": item(4_096) }).to_string()), (2, 0));
        let batch = json!({ "RequestItems": { "t": { "Keys": [{}, {}, {}, {}] } } });
        let answer = json!({
            "Responses": { "t": [item(4_096), item(1)] },
            "UnprocessedKeys": { "t": { "Keys": [{}] } },
        });
        assert_eq!(units("BatchGetItem", batch, &answer.to_string()), (2 + 1 + 1, 0));
        let mut swap = key();
        swap["ExpressionAttributeValues"] = json!({ ":new": { "B": "AAAAAAAAAAA=" } });
        assert_eq!(units("UpdateItem", swap, ""), (0, 1));
    }
}
