//! Subjects, as a stream of lines without an end.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream::unfold;
use tokio::sync::{
    broadcast::error::{RecvError, TryRecvError},
    watch,
};

use super::{
    Api,
    problem::{Problem, What},
    stages::NDJSON,
};
use crate::pipeline::Subscription;

/// Bytes that are sent at once, as far as they are there: a write for each line would cost more than the line.
const CHUNK_BYTES_MAX: usize = 64 << 10;

pub(super) async fn watch(State(api): State<Arc<Api>>, Path(subject): Path<String>) -> Result<Response, Problem> {
    let subscription = api.hub.subscribe(&subject).map_err(|error| Problem::of(&error, What::UnknownSubject))?;
    let watcher = Watcher { subscription, stopping: api.stopping.subscribe() };
    let chunks = unfold(watcher, async |mut watcher| {
        let chunk = watcher.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), watcher))
    });
    Ok(([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(chunks)).into_response())
}

struct Watcher {
    subscription: Subscription,
    stopping: watch::Receiver<bool>,
}

impl Watcher {
    /// The next lines; `None` once there will be no more.
    async fn next(&mut self) -> Option<String> {
        let mut chunk = String::new();
        while chunk.is_empty() {
            let received = tokio::select! {
                biased;
                _ = self.stopping.wait_for(|is_stopping| *is_stopping) => return None,
                received = self.subscription.receiver.recv() => received,
            };
            match received {
                Ok(line) => self.add(&line, &mut chunk),
                Err(RecvError::Lagged(count)) => add_skipped(count, &mut chunk),
                Err(RecvError::Closed) => return None,
            }
        }
        self.add_ready(&mut chunk);
        Some(chunk)
    }

    /// Adds what is there already.
    fn add_ready(&mut self, chunk: &mut String) {
        while chunk.len() < CHUNK_BYTES_MAX {
            match self.subscription.receiver.try_recv() {
                Ok(line) => self.add(&line, chunk),
                Err(TryRecvError::Lagged(count)) => add_skipped(count, chunk),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn add(&self, line: &str, chunk: &mut String) {
        if self.subscription.wants(line) {
            chunk.push_str(line);
            chunk.push('\n');
        }
    }
}

/// Says that lines were left out because the client reads too slowly.
fn add_skipped(count: u64, chunk: &mut String) {
    chunk.push_str(&format!("{{\"kind\":\"skipped\",\"count\":{count}}}\n"));
}
