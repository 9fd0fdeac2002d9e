//! Keys and values, by Spin's interface and by WASI's.

use spin_sdk::experimental::wasi::keyvalue::{atomics, batch, store};
use spin_sdk::http::StatusCode;
use spin_sdk::key_value::Store;

use crate::answer::{Answer, answer};

pub(crate) async fn answer_to(operation: &str, label: &str, key: &str, value: String) -> Answer {
    match operation {
        "get" | "set" | "delete" | "exists" | "keys" => answer(spin(operation, label, key, value).await),
        "increment" | "many" | "set-many" | "leak" => answer(wasi(operation, label, key, value)),
        // A swap that has read what is there, one that has not, and one that somebody writes into between.
        "swap" => swap(label, key, value, &[Step::Read]),
        "swap-blind" => swap(label, key, value, &[]),
        "swap-late" => swap(label, key, value, &[Step::Read, Step::Write]),
        _ => (StatusCode::NOT_FOUND, format!("the probe has no operation {operation}")),
    }
}

async fn spin(operation: &str, label: &str, key: &str, value: String) -> Result<String, String> {
    let failed = |error: spin_sdk::key_value::Error| format!("{error:?}");
    let store = Store::open(label).await.map_err(failed)?;
    match operation {
        "get" => {
            let value = store.get(key).await.map_err(failed)?;
            Ok(value.map_or("absent".to_owned(), |value| String::from_utf8_lossy(&value).into_owned()))
        }
        "set" => store.set(key, value).await.map(|()| "set".to_owned()).map_err(failed),
        "delete" => store.delete(key).await.map(|()| "deleted".to_owned()).map_err(failed),
        "exists" => store.exists(key).await.map(|exists| exists.to_string()).map_err(failed),
        _ => store.get_keys().await.collect().await.map(|keys| keys.join(" ")).map_err(failed),
    }
}

fn wasi(operation: &str, label: &str, key: &str, value: String) -> Result<String, store::Error> {
    let bucket = store::open(label)?;
    let keys = || key.split(',').map(str::to_owned);
    match operation {
        "increment" => Ok(atomics::increment(&bucket, key, value.parse().unwrap_or_default())?.to_string()),
        "many" => {
            let found = batch::get_many(&bucket, &keys().collect::<Vec<_>>())?;
            let text = |(key, value): &(String, Option<Vec<u8>>)| {
                format!("{key}={}", String::from_utf8_lossy(value.as_deref().unwrap_or_default()))
            };
            Ok(found.iter().map(text).collect::<Vec<_>>().join(" "))
        }
        "set-many" => {
            let entries: Vec<_> = keys().map(|key| (key, value.clone().into_bytes())).collect();
            batch::set_many(&bucket, &entries).map(|()| "set".to_owned())
        }
        _ => {
            std::mem::forget(bucket);
            Ok("leaked".to_owned())
        }
    }
}

enum Step {
    Read,
    Write,
}

fn swap(label: &str, key: &str, value: String, steps: &[Step]) -> Answer {
    let swap = || {
        let bucket = store::open(label).map_err(atomics::CasError::StoreError)?;
        let cas = atomics::Cas::new(&bucket, key).map_err(atomics::CasError::StoreError)?;
        for step in steps {
            let done = match step {
                Step::Read => cas.current().map(drop),
                Step::Write => bucket.set(key, b"somebody else's"),
            };
            done.map_err(atomics::CasError::StoreError)?;
        }
        atomics::swap(cas, value.as_bytes())
    };
    match swap() {
        Ok(()) => answer(Ok::<_, ()>("swapped")),
        Err(atomics::CasError::StoreError(error)) => answer(Err::<String, _>(error)),
        // The handle that is given back expects what is there now.
        Err(atomics::CasError::CasFailed(again)) => {
            let again = atomics::swap(again, value.as_bytes());
            (StatusCode::CONFLICT, if again.is_ok() { "lost, then swapped" } else { "lost twice" }.to_owned())
        }
    }
}
