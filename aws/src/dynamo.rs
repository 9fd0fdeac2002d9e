//! State in a DynamoDB table: an item for each key.
//!
//! The table's partition key is [`KEY`], a text, and it has no sort key. A value is the binary attribute [`VALUE`]. What
//! `increment` makes is the number [`NUMBER`]. A head is both: its number, by which it is swapped, and its root. Reads are
//! strongly consistent.
//!
//! A page of state, or a root, is the binary attribute [`PACKED`] instead of a value where that is shorter: deflated
//! (RFC 1951). AWS is paid by the kilobyte.
//!
//! Keys are asked for in one batch: a new process has one connection, and each further one is a handshake. Those that a batch
//! leaves undone are asked for one by one, as keys are written: the SDK asks again for each that was throttled.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
};

use aws_sdk_dynamodb::{
    Client,
    error::{DisplayErrorContext, SdkError},
    operation::put_item::{PutItemError, builders::PutItemFluentBuilder},
    primitives::Blob,
    types::{AttributeValue, KeysAndAttributes, ReturnValue},
};
use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tapeline_state::{Bucket, Head, StateError, is_page};

/// The partition key.
pub const KEY: &str = "key";
/// The attribute of values.
pub const VALUE: &str = "value";
/// The attribute of pages that were made shorter.
pub const PACKED: &str = "packed";
/// The attribute of numbers.
pub const NUMBER: &str = "number";

/// Requests under way for one call.
const REQUESTS_MAX: usize = 16;
/// Bytes of a page that is not worth it: what it has less costs nothing less.
const UNPACKED_BYTES: usize = 1_024;

type Item = HashMap<String, AttributeValue>;
/// What is known of keys: their values, or that they have none.
type Found = HashMap<String, Option<Vec<u8>>>;

/// A table.
#[derive(Clone, Debug)]
pub struct DynamoBucket {
    client: Client,
    table: String,
}

impl DynamoBucket {
    /// A table that is there.
    pub const fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    async fn item(&self, key: &str) -> Result<Option<Item>, StateError> {
        let get = self.client.get_item().table_name(&self.table).key(KEY, text(key)).consistent_read(true);
        Ok(get.send().await.map_err(failed)?.item)
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        let value = |item| value_of(&item).ok_or_else(|| StateError::Corrupt(key.to_owned()));
        self.item(key).await?.map(value).transpose()
    }

    /// What a batch gives of these keys. What it leaves undone is not in it.
    async fn get_batch(&self, keys: &[String]) -> Result<Found, StateError> {
        let item_keys = keys.iter().map(|key| Item::from([(KEY.to_owned(), text(key))])).collect();
        let keys_and = KeysAndAttributes::builder().set_keys(Some(item_keys)).consistent_read(true).build();
        let keys_and = keys_and.map_err(|error| StateError::Store(error.to_string()))?;
        let batch = self.client.batch_get_item().request_items(&self.table, keys_and).send().await.map_err(failed)?;
        let mut found: Found = keys.iter().map(|key| (key.clone(), None)).collect();
        let undone = batch.unprocessed_keys.into_iter().flatten().flat_map(|(_, undone)| undone.keys);
        for item in undone {
            found.remove(key_of(&item));
        }
        for item in batch.responses.into_iter().flatten().flat_map(|(_, items)| items) {
            let key = key_of(&item).to_owned();
            let value = value_of(&item).ok_or_else(|| StateError::Corrupt(key.clone()))?;
            found.insert(key, Some(value));
        }
        Ok(found)
    }

    /// Puts an item there, whatever was.
    fn put(&self, key: &str, value: &[u8], packed: Option<Vec<u8>>) -> PutItemFluentBuilder {
        let put = self.client.put_item().table_name(&self.table).item(KEY, text(key));
        match packed {
            Some(packed) => put.item(PACKED, AttributeValue::B(Blob::new(packed))),
            None => put.item(VALUE, AttributeValue::B(Blob::new(value))),
        }
    }
}

impl Bucket for DynamoBucket {
    /// An item has 400 KB, its key included.
    const VALUE_BYTES_MAX: u64 = 390_000;

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StateError> {
        let mut found = if keys.len() > 1 { self.get_batch(keys).await? } else { Found::new() };
        let gets: Vec<_> = keys
            .iter()
            .map(|key| {
                let found = found.remove(key);
                async move {
                    match found {
                        Some(value) => Ok(value),
                        None => self.get(key).await,
                    }
                }
            })
            .collect();
        stream::iter(gets).buffered(REQUESTS_MAX).try_collect().await
    }

    async fn set_many(&self, values: &[(String, Vec<u8>)]) -> Result<(), StateError> {
        let puts = values.iter().map(|(key, value)| {
            let put = self.put(key, value, is_page(key).then(|| packed(value)).flatten());
            async move { put.send().await.map(drop).map_err(failed) }
        });
        let puts: Vec<_> = puts.collect();
        stream::iter(puts).buffer_unordered(REQUESTS_MAX).try_collect().await
    }

    async fn delete_many(&self, keys: &[String]) -> Result<(), StateError> {
        let deletes = keys.iter().map(|key| {
            let delete = self.client.delete_item().table_name(&self.table).key(KEY, text(key));
            async move { delete.send().await.map(drop).map_err(failed) }
        });
        let deletes: Vec<_> = deletes.collect();
        stream::iter(deletes).buffer_unordered(REQUESTS_MAX).try_collect().await
    }

    async fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError> {
        let update = self.client.update_item().table_name(&self.table).key(KEY, text(key));
        let update = update.update_expression("ADD #number :delta").expression_attribute_names("#number", NUMBER);
        let update = update.expression_attribute_values(":delta", AttributeValue::N(delta.to_string()));
        let updated = update.return_values(ReturnValue::UpdatedNew).send().await.map_err(failed)?;
        match updated.attributes.as_ref().and_then(|found| found.get(NUMBER)) {
            Some(AttributeValue::N(sum)) => sum.parse().map_err(|_| StateError::Corrupt(key.to_owned())),
            _ => Err(StateError::Corrupt(key.to_owned())),
        }
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StateError> {
        let head = |item| head_of(&item).ok_or_else(|| StateError::Corrupt(key.to_owned()));
        self.item(key).await?.map(head).transpose()
    }

    async fn swap(&self, key: &str, expected: u64, head: &Head) -> Result<bool, StateError> {
        let put = self.put(key, &head.root, packed(&head.root));
        let put = put.item(NUMBER, AttributeValue::N(head.number.to_string()));
        let put = match expected {
            0 => put.condition_expression("attribute_not_exists(#key)").expression_attribute_names("#key", KEY),
            expected => put
                .condition_expression("#number = :expected")
                .expression_attribute_names("#number", NUMBER)
                .expression_attribute_values(":expected", AttributeValue::N(expected.to_string())),
        };
        match put.send().await {
            Ok(_) => Ok(true),
            Err(error) if is_refused(&error) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }
}

fn key_of(item: &Item) -> &str {
    item.get(KEY).and_then(|key| key.as_s().ok()).map_or("", String::as_str)
}

/// The value that an item holds; `None` when it is damaged, or holds none.
fn value_of(item: &Item) -> Option<Vec<u8>> {
    match (item.get(VALUE), item.get(PACKED)) {
        (Some(AttributeValue::B(value)), None) => Some(value.as_ref().to_vec()),
        (None, Some(AttributeValue::B(packed))) => unpacked(packed.as_ref()),
        _ => None,
    }
}

/// The head that an item is; `None` when it is damaged, or none.
fn head_of(item: &Item) -> Option<Head> {
    let number = item.get(NUMBER)?.as_n().ok()?.parse().ok().filter(|number| *number > 0)?;
    Some(Head { number, root: value_of(item)? })
}

/// A page or a root made shorter, if that can be.
fn packed(value: &[u8]) -> Option<Vec<u8>> {
    if value.len() <= UNPACKED_BYTES {
        return None;
    }
    let mut deflate = DeflateEncoder::new(Vec::new(), Compression::fast());
    let packed = deflate.write_all(value).and_then(|()| deflate.finish()).ok()?;
    (packed.len() < value.len()).then_some(packed)
}

/// A page or a root as it was; `None` when it is damaged.
fn unpacked(packed: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    DeflateDecoder::new(packed).take(DynamoBucket::VALUE_BYTES_MAX).read_to_end(&mut value).ok()?;
    Some(value)
}

fn is_refused<R>(error: &SdkError<PutItemError, R>) -> bool {
    error.as_service_error().is_some_and(PutItemError::is_conditional_check_failed_exception)
}

fn failed<E, R>(error: SdkError<E, R>) -> StateError
where
    SdkError<E, R>: std::error::Error,
{
    StateError::Store(format!("DynamoDB: {}", DisplayErrorContext(error)))
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_comes_out_as_it_was() {
        let page: Vec<u8> = (0..30_000_u32).flat_map(|at| (at / 3).to_le_bytes()).collect();
        let short = packed(&page).unwrap();
        assert!(short.len() * 2 < page.len(), "{} of {} bytes", short.len(), page.len());
        assert_eq!(unpacked(&short), Some(page.clone()));
        assert_eq!(unpacked(&short[..short.len() / 2]), None);
        assert_eq!(packed(&page[..UNPACKED_BYTES]), None, "what is small stays as it is");
    }

    #[test]
    fn a_head_is_a_number_and_a_root() {
        let blob = |bytes: &[u8]| AttributeValue::B(Blob::new(bytes));
        let number = |text: &str| (NUMBER, AttributeValue::N(text.to_owned()));
        let read = |item: &[(&str, AttributeValue)]| {
            head_of(&item.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
        };
        let head = |root: &[u8]| Some(Head { number: 7, root: root.to_vec() });
        assert_eq!(read(&[number("7"), (VALUE, blob(b"root"))]), head(b"root"));
        let root = vec![1; 2_000];
        assert_eq!(read(&[number("7"), (PACKED, blob(&packed(&root).unwrap()))]), head(&root));
        assert_eq!(read(&[number("7"), (PACKED, blob(b"damaged"))]), None);
        assert_eq!(read(&[number("7")]), None);
        // As a program wrote it that kept its roots in pages.
        assert_eq!(read(&[number("0"), (VALUE, blob(&[7, 0, 0, 0, 0, 0, 0, 0]))]), None);
        assert_eq!(read(&[(VALUE, blob(b"root"))]), None);
    }
}
