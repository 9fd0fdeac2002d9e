//! Atomic batches (<https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md>): messages that a
//! stream stores together or not at all.

use async_nats::{
    HeaderMap,
    jetstream::{ErrorCode, response::Response},
};
use bytes::Bytes;
use serde::Deserialize;

use super::{ANSWER_TIME_MAX, Broker, unavailable};
use crate::{
    bus::{TRACEPARENT, TraceContext},
    error::Result,
};

/// Messages of a batch; a limit of the broker.
pub(super) const MESSAGES_MAX: usize = 1_000;

/// One message of a batch.
pub(super) struct Part {
    pub(super) subject: String,
    pub(super) payload: Bytes,
    /// Whether it takes the place of all earlier ones of its subject.
    pub(super) is_rollup: bool,
    /// Number of the last message of its subject, if the batch is to be refused when there is another.
    pub(super) expected: Option<u64>,
    /// The step of a trace that it belongs to, if it says.
    pub(super) trace: Option<TraceContext>,
}

/// Why a batch was not stored, or may not have been.
pub(super) enum Refusal {
    /// The last message of a subject is another one.
    Overtaken,
    /// The broker did not answer, is full, or something like that: it may be tried again.
    Unavailable(async_nats::Error),
}

#[derive(Deserialize)]
struct Stored {
    seq: u64,
}

impl Broker {
    /// Publishes messages, each by itself. Some may be stored when it fails.
    pub(super) fn publish_all(&self, parts: &[Part]) -> Result<()> {
        let published = self.wait(async {
            tokio::time::timeout(ANSWER_TIME_MAX, async {
                let mut answers = Vec::with_capacity(parts.len());
                for part in parts {
                    let mut headers = HeaderMap::new();
                    if let Some(trace) = part.trace {
                        headers.insert(TRACEPARENT, trace.to_string());
                    }
                    let sent = self.jetstream.publish_with_headers(part.subject.clone(), headers, part.payload.clone());
                    answers.push(sent.await?);
                }
                for answer in answers {
                    answer.await?;
                }
                Ok::<_, async_nats::Error>(())
            })
            .await
        });
        match published {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(unavailable("publish what a commit gives out".to_owned(), error)),
            Err(late) => Err(unavailable("publish what a commit gives out".to_owned(), late)),
        }
    }

    /// Stores a batch. Gives the number in the stream of its first message.
    pub(super) async fn store_together(&self, parts: &[Part]) -> std::result::Result<u64, Refusal> {
        let client = self.client();
        let id = client.new_inbox();
        let id = id.rsplit('.').next().unwrap_or_default();
        let count = parts.len();
        let unavailable = |error: async_nats::Error| Refusal::Unavailable(error);
        for (at, part) in parts.iter().enumerate() {
            let mut headers = HeaderMap::new();
            // A single message is whole by itself, and costs a tenth of a batch of one.
            if count > 1 {
                headers.insert("Nats-Batch-Id", id);
                headers.insert("Nats-Batch-Sequence", (at + 1).to_string());
            }
            if part.is_rollup {
                headers.insert("Nats-Rollup", "sub");
            }
            if let Some(expected) = part.expected {
                headers.insert("Nats-Expected-Last-Subject-Sequence", expected.to_string());
            }
            if let Some(trace) = part.trace {
                headers.insert(TRACEPARENT, trace.to_string());
            }
            if at + 1 < count {
                let sent = client.publish_with_headers(part.subject.clone(), headers, part.payload.clone()).await;
                sent.map_err(|error| unavailable(error.into()))?;
                continue;
            }
            if count > 1 {
                headers.insert("Nats-Batch-Commit", "1");
            }
            let answer = client.request_with_headers(part.subject.clone(), headers, part.payload.clone()).await;
            let answer = answer.map_err(|error| unavailable(error.into()))?;
            return match serde_json::from_slice(&answer.payload).map_err(|error| unavailable(error.into()))? {
                Response::Ok(Stored { seq }) => Ok(seq + 1 - count as u64),
                Response::Err { error } => Err(match error.error_code() {
                    ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => {
                        Refusal::Overtaken
                    }
                    _ => unavailable(error.into()),
                }),
            };
        }
        Err(unavailable("an empty batch".into()))
    }
}
