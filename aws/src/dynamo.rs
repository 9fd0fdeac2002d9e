//! State in a DynamoDB table: an item for each key.
//!
//! The table's partition key is [`KEY`], a text, and it has no sort key. A value is the binary attribute [`VALUE`]. What
//! `increment` makes is the number [`NUMBER`], which reads as 8 bytes, the lowest first, until a swap puts a value in its
//! place. Reads are strongly consistent.
//!
//! A page of state, which is never changed, is the binary attribute [`PACKED`] instead where that is shorter: deflated
//! (RFC 1951). AWS is paid by the kilobyte.
//!
//! Keys are asked for one by one, several at once: the SDK asks again for each that was throttled, which it does not for
//! those that a batch leaves undone.

use std::io::{Read as _, Write as _};

use aws_sdk_dynamodb::{
    Client,
    error::{DisplayErrorContext, SdkError},
    operation::update_item::UpdateItemError,
    primitives::Blob,
    types::{AttributeValue, ReturnValue},
};
use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tapeline_state::{Bucket, StateError, is_page};

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

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        let found =
            self.client.get_item().table_name(&self.table).key(KEY, text(key)).consistent_read(true).send().await;
        let Some(item) = found.map_err(failed)?.item else { return Ok(None) };
        match (item.get(VALUE).or_else(|| item.get(PACKED)), item.get(NUMBER)) {
            (Some(AttributeValue::B(packed)), _) if !item.contains_key(VALUE) => {
                unpacked(packed.as_ref()).map(Some).ok_or_else(|| StateError::Corrupt(key.to_owned()))
            }
            (Some(AttributeValue::B(value)), _) => Ok(Some(value.as_ref().to_vec())),
            (None, Some(AttributeValue::N(number))) => {
                let number: i64 = number.parse().map_err(|_| StateError::Corrupt(key.to_owned()))?;
                Ok(Some(number.to_le_bytes().to_vec()))
            }
            _ => Err(StateError::Corrupt(key.to_owned())),
        }
    }
}

impl Bucket for DynamoBucket {
    /// An item has 400 KB, its key included.
    const VALUE_BYTES_MAX: u64 = 390_000;

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StateError> {
        let gets: Vec<_> = keys.iter().map(|key| self.get(key)).collect();
        stream::iter(gets).buffered(REQUESTS_MAX).try_collect().await
    }

    async fn set_many(&self, values: &[(String, Vec<u8>)]) -> Result<(), StateError> {
        let puts = values.iter().map(|(key, value)| {
            let put = self.client.put_item().table_name(&self.table).item(KEY, text(key));
            let put = match packed(key, value) {
                Some(packed) => put.item(PACKED, AttributeValue::B(Blob::new(packed))),
                None => put.item(VALUE, bytes(value)),
            };
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

    async fn swap(&self, key: &str, expected: &[u8], value: &[u8]) -> Result<bool, StateError> {
        let update = self.client.update_item().table_name(&self.table).key(KEY, text(key));
        let update = update.update_expression("SET #value = :new").expression_attribute_names("#value", VALUE);
        let update = update.expression_attribute_values(":new", bytes(value));
        let update = update.expression_attribute_values(":old", bytes(expected));
        let swapped = match <[u8; 8]>::try_from(expected) {
            // It may be a number as yet.
            Ok(number) => {
                let number = i64::from_le_bytes(number).to_string();
                update
                    .condition_expression("#value = :old OR (attribute_not_exists(#value) AND #number = :number)")
                    .expression_attribute_names("#number", NUMBER)
                    .expression_attribute_values(":number", AttributeValue::N(number))
            }
            Err(_) => update.condition_expression("#value = :old"),
        };
        match swapped.send().await {
            Ok(_) => Ok(true),
            Err(error) if is_refused(&error) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }
}

/// A page made shorter, if that can be.
fn packed(key: &str, value: &[u8]) -> Option<Vec<u8>> {
    if value.len() <= UNPACKED_BYTES || !is_page(key) {
        return None;
    }
    let mut deflate = DeflateEncoder::new(Vec::new(), Compression::fast());
    let packed = deflate.write_all(value).and_then(|()| deflate.finish()).ok()?;
    (packed.len() < value.len()).then_some(packed)
}

/// A page as it was; `None` when it is damaged.
fn unpacked(packed: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    DeflateDecoder::new(packed).take(DynamoBucket::VALUE_BYTES_MAX).read_to_end(&mut value).ok()?;
    Some(value)
}

fn is_refused<R>(error: &SdkError<UpdateItemError, R>) -> bool {
    error.as_service_error().is_some_and(UpdateItemError::is_conditional_check_failed_exception)
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

fn bytes(bytes: &[u8]) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_comes_out_as_it_was() {
        let page: Vec<u8> = (0..30_000_u32).flat_map(|at| (at / 3).to_le_bytes()).collect();
        let short = packed("tapeline/segment/p/s/partition-0/7/1", &page).unwrap();
        assert!(short.len() * 2 < page.len(), "{} of {} bytes", short.len(), page.len());
        assert_eq!(unpacked(&short), Some(page.clone()));
        assert_eq!(unpacked(&short[..short.len() / 2]), None);
        // What can be swapped must be what was put there; what is small stays as it is.
        assert_eq!(packed("tapeline/segment/p/s/partition-0/head", &page), None);
        assert_eq!(packed("tapeline/segment/p/s/partition-0/7/1", &page[..UNPACKED_BYTES]), None);
    }
}
