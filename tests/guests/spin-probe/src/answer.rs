//! What is asked for by which path. `/probe` before it means nothing, so that it can be the route.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use spin_sdk::http::body::IncomingBodyExt;
use spin_sdk::http::{self, Request, StatusCode};
use spin_sdk::{time, variables};

use crate::{keys, stage};

/// How often this instance was called.
static CALLS: AtomicU32 = AtomicU32::new(0);

/// How many calls are under way in this instance.
static INSIDE: AtomicU32 = AtomicU32::new(0);

pub(crate) type Answer = (StatusCode, String);

/// Answers with 200 and the thing asked for, or with 422 and the error that Spin gave.
pub(crate) async fn to(request: Request) -> Answer {
    let path = request.uri().path().to_owned();
    let path = path.strip_prefix("/probe").unwrap_or(&path);
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["variable", name] => answer(variables::get(name).await),
        ["header", name] => {
            let value = request.headers().get(*name).map(|value| value.to_str().unwrap_or_default().to_owned());
            answer(value.ok_or("no such header"))
        }
        ["uri"] => found(request.uri().to_string()),
        ["length"] => answer(request.into_body().bytes().await.map(|body| body.len().to_string())),
        ["calls"] => found((CALLS.fetch_add(1, Ordering::Relaxed) + 1).to_string()),
        ["inside", milliseconds] => found(inside(milliseconds).await),
        ["trap"] => panic!("the probe was told to"),
        ["fail"] => answer(Err::<String, _>("the probe was told to")),
        ["ask"] => ask(&body(request).await).await,
        ["stage"] => answer(stage::describe()),
        ["key", operation, label, key] => {
            let (operation, label, key) = (operation.to_string(), label.to_string(), key.to_string());
            keys::answer_to(&operation, &label, &key, body(request).await).await
        }
        _ => (StatusCode::NOT_FOUND, format!("the probe knows nothing of {path}")),
    }
}

pub(crate) fn answer(result: Result<impl Into<String>, impl std::fmt::Debug>) -> Answer {
    match result {
        Ok(text) => found(text.into()),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{error:?}")),
    }
}

pub(crate) fn found(text: String) -> Answer {
    (StatusCode::OK, text)
}

async fn body(request: Request) -> String {
    let bytes = request.into_body().bytes().await.map(|bytes| bytes.to_vec()).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// Waits, and tells how many calls were under way when it began to.
async fn inside(milliseconds: &str) -> String {
    let inside = INSIDE.fetch_add(1, Ordering::Relaxed) + 1;
    time::sleep(Duration::from_millis(milliseconds.parse().unwrap_or_default())).await;
    INSIDE.fetch_sub(1, Ordering::Relaxed);
    inside.to_string()
}

/// Gives the status and the body of another server's or component's answer.
async fn ask(url: &str) -> Answer {
    match http::get(url).await {
        Ok(response) => {
            let status = response.status().as_u16();
            answer(
                response.into_body().bytes().await.map(|body| format!("{status} {}", String::from_utf8_lossy(&body))),
            )
        }
        Err(error) => answer(Err::<String, _>(error)),
    }
}
