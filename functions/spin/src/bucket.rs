//! Spin's key-value store, through the interface that has compare-and-swap (`wasi:keyvalue`; Spin's own has none).

#[allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, reason = "generated from wit/")]
mod bindings {
    wit_bindgen::generate!({
        world: "wasi:keyvalue/imports@0.2.0-draft2",
        path: "wit",
        generate_all,
    });
}

use std::collections::BTreeMap;

use bindings::wasi::keyvalue::{
    atomics::{self, Cas, CasError, swap},
    batch,
    store::{self, Error},
};

use tapeline_state::{Bucket, StateError};

/// The store that every Spin application has.
const LABEL: &str = "default";

/// An open store.
pub(crate) struct SpinBucket(store::Bucket);

impl SpinBucket {
    /// Opens it; the manifest must grant it: `key_value_stores = ["default"]`.
    pub(crate) fn open() -> Result<Self, StateError> {
        store::open(LABEL).map(Self).map_err(|error| failed(&error))
    }
}

impl Bucket for SpinBucket {
    /// Of its own store there is no limit but the memory of a component.
    const VALUE_BYTES_MAX: u64 = u32::MAX as u64;

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StateError> {
        if let [key] = keys {
            return Ok(vec![self.0.get(key).map_err(|error| failed(&error))?]);
        }
        // Keys without a value may be left out, and the order may be any.
        let found = batch::get_many(&self.0, keys).map_err(|error| failed(&error))?;
        let mut found: BTreeMap<String, Option<Vec<u8>>> = found.into_iter().collect();
        Ok(keys.iter().map(|key| found.remove(key).flatten()).collect())
    }

    async fn set_many(&self, values: &[(String, Vec<u8>)]) -> Result<(), StateError> {
        batch::set_many(&self.0, values).map_err(|error| failed(&error))
    }

    async fn delete_many(&self, keys: &[String]) -> Result<(), StateError> {
        batch::delete_many(&self.0, keys).map_err(|error| failed(&error))
    }

    async fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError> {
        atomics::increment(&self.0, key, delta).map_err(|error| failed(&error))
    }

    async fn swap(&self, key: &str, expected: &[u8], value: &[u8]) -> Result<bool, StateError> {
        let cas = Cas::new(&self.0, key).map_err(|error| failed(&error))?;
        if cas.current().map_err(|error| failed(&error))?.as_deref() != Some(expected) {
            return Ok(false);
        }
        match swap(cas, value) {
            Ok(()) => Ok(true),
            Err(CasError::CasFailed(_)) => Ok(false),
            Err(CasError::StoreError(error)) => Err(failed(&error)),
        }
    }
}

fn failed(error: &Error) -> StateError {
    StateError::Store(match error {
        Error::NoSuchStore => format!("there is no store {LABEL:?}"),
        Error::AccessDenied => format!("spin.toml does not grant {LABEL:?} in key_value_stores"),
        Error::Other(reason) => reason.clone(),
    })
}
