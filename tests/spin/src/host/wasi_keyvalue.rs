//! `wasi:keyvalue`: the same stores by WASI's draft, with batches and compare-and-swap.
//!
//! Where the draft leaves a choice, it does as Spin with SQLite: keys come in one page, and a batch of values leaves out
//! the keys that are absent.

use std::sync::Arc;

use wasmtime::component::Resource;

use super::generated::wasi::keyvalue::atomics::{self, CasError};
use super::generated::wasi::keyvalue::batch;
use super::generated::wasi::keyvalue::store::{self, Error, KeyResponse};
use super::{Host, OPEN_MAX, OpenError, OpenStore, refused};
use crate::key_value::Swap;

/// A swap that was begun: what it expects is what `current` read last, and nothing before that.
#[expect(unreachable_pub, reason = "generated code exports it again, inside of this module")]
pub struct CompareAndSwap {
    label: Arc<str>,
    key: String,
    expected: Option<Vec<u8>>,
}

impl store::Host for Host {
    fn open(&mut self, identifier: String) -> wasmtime::Result<Result<Resource<OpenStore>, Error>> {
        let opened = self.open_store(&identifier)?;
        Ok(opened.map_err(|error| match error {
            OpenError::Denied => Error::AccessDenied,
            OpenError::TableFull => Error::Other("store table full".to_owned()),
        }))
    }
}

impl store::HostBucket for Host {
    fn get(&mut self, bucket: Resource<OpenStore>, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let (stores, label) = self.store(&bucket)?;
        Ok(Ok(stores.get(&label, &key)))
    }

    fn set(&mut self, bucket: Resource<OpenStore>, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), Error>> {
        let (stores, label) = self.store(&bucket)?;
        refused(stores.set(&label, key, value), Error::Other)
    }

    fn delete(&mut self, bucket: Resource<OpenStore>, key: String) -> wasmtime::Result<Result<(), Error>> {
        let (stores, label) = self.store(&bucket)?;
        refused(stores.delete(&label, &key), Error::Other)
    }

    fn exists(&mut self, bucket: Resource<OpenStore>, key: String) -> wasmtime::Result<Result<bool, Error>> {
        let (stores, label) = self.store(&bucket)?;
        Ok(Ok(stores.get(&label, &key).is_some()))
    }

    fn list_keys(
        &mut self,
        bucket: Resource<OpenStore>,
        cursor: Option<String>,
    ) -> wasmtime::Result<Result<KeyResponse, Error>> {
        let (stores, label) = self.store(&bucket)?;
        Ok(match cursor {
            Some(_) => Err(Error::Other("list_keys: cursor not supported".to_owned())),
            None => Ok(KeyResponse { keys: stores.keys(&label), cursor: None }),
        })
    }

    fn drop(&mut self, bucket: Resource<OpenStore>) -> wasmtime::Result<()> {
        self.close_store(bucket)
    }
}

impl batch::Host for Host {
    fn get_many(
        &mut self,
        bucket: Resource<OpenStore>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<Vec<(String, Option<Vec<u8>>)>, Error>> {
        let (stores, label) = self.store(&bucket)?;
        let found = |key: String| stores.get(&label, &key).map(|value| (key, Some(value)));
        let mut found: Vec<_> = keys.into_iter().filter_map(found).collect();
        // Not the order they were asked for in: a table has its own.
        found.sort();
        found.dedup();
        Ok(Ok(found))
    }

    fn set_many(
        &mut self,
        bucket: Resource<OpenStore>,
        entries: Vec<(String, Vec<u8>)>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let (stores, label) = self.store(&bucket)?;
        let set = entries.into_iter().try_for_each(|(key, value)| stores.set(&label, key, value));
        refused(set, Error::Other)
    }

    fn delete_many(&mut self, bucket: Resource<OpenStore>, keys: Vec<String>) -> wasmtime::Result<Result<(), Error>> {
        let (stores, label) = self.store(&bucket)?;
        let deleted = keys.iter().try_for_each(|key| stores.delete(&label, key));
        refused(deleted, Error::Other)
    }
}

impl atomics::Host for Host {
    fn increment(
        &mut self,
        bucket: Resource<OpenStore>,
        key: String,
        delta: i64,
    ) -> wasmtime::Result<Result<i64, Error>> {
        let (stores, label) = self.store(&bucket)?;
        refused(stores.increment(&label, key, delta), Error::Other)
    }

    fn swap(&mut self, cas: Resource<CompareAndSwap>, value: Vec<u8>) -> wasmtime::Result<Result<(), CasError>> {
        // Spin does not take a swap that was carried out out of its table: its place is lost to the instance.
        let CompareAndSwap { label, key, expected } = self.table.delete(cas)?;
        let swapped = self.grants.key_value.swap(&label, &key, expected.as_deref(), value);
        let swapped = refused(swapped, |text| CasError::StoreError(Error::Other(text)))?;
        Ok(match swapped {
            Ok(Swap::Done) => Ok(()),
            Ok(Swap::Lost) => {
                let expected = self.grants.key_value.get(&label, &key);
                Err(match self.begin_swap(CompareAndSwap { label, key, expected })? {
                    Ok(again) => CasError::CasFailed(again),
                    Err(error) => CasError::StoreError(error),
                })
            }
            Err(error) => Err(error),
        })
    }
}

impl atomics::HostCas for Host {
    fn new(
        &mut self,
        bucket: Resource<OpenStore>,
        key: String,
    ) -> wasmtime::Result<Result<Resource<CompareAndSwap>, Error>> {
        let (_, label) = self.store(&bucket)?;
        self.begin_swap(CompareAndSwap { label, key, expected: None })
    }

    fn current(&mut self, cas: Resource<CompareAndSwap>) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let swap = self.table.get_mut(&cas)?;
        swap.expected = self.grants.key_value.get(&swap.label, &swap.key);
        Ok(Ok(swap.expected.clone()))
    }

    fn drop(&mut self, cas: Resource<CompareAndSwap>) -> wasmtime::Result<()> {
        self.end_swap(cas).map(drop)
    }
}

impl Host {
    fn begin_swap(&mut self, swap: CompareAndSwap) -> wasmtime::Result<Result<Resource<CompareAndSwap>, Error>> {
        if self.swaps_open == OPEN_MAX {
            return Ok(Err(Error::Other("too many compare_and_swaps opened".to_owned())));
        }
        self.swaps_open += 1;
        Ok(Ok(self.table.push(swap)?))
    }

    fn end_swap(&mut self, swap: Resource<CompareAndSwap>) -> wasmtime::Result<CompareAndSwap> {
        self.swaps_open -= 1;
        Ok(self.table.delete(swap)?)
    }
}
