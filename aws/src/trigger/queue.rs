//! A batch of messages of a FIFO queue.
//!
//! The messages of a group are done in their order. When one is not done, those behind it in its group are not begun: all
//! of them are told as failed, and come again in this order. Other groups go on.

use std::{collections::BTreeMap, time::Instant};

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};

use super::now_ns;
use crate::{
    function::{Function, Received},
    message::ENTRANCE_GROUP,
    metrics::{Happened, Teller},
};

/// A message, and the partition that it is for.
struct Message {
    partition: Option<u32>,
    received: Received,
}

/// Does what can be done, and says which messages are to come again.
pub(super) async fn take(function: &mut Function, event: SqsEvent, until: Instant) -> SqsBatchResponse {
    let mut answer = SqsBatchResponse::default();
    let mut groups: BTreeMap<String, Vec<Message>> = BTreeMap::new();
    for message in event.records {
        let group = message.attributes.get("MessageGroupId").cloned().unwrap_or_default();
        let message = read(message, &group, function);
        groups.entry(group).or_default().push(message);
    }
    let mut newest = None;
    for (group, messages) in groups {
        let mut is_stopped = false;
        for Message { partition, received } in messages {
            let done = match partition {
                _ if is_stopped => None,
                Some(partition) => match function.take(partition, &received, until).await {
                    Ok(done) => Some(done),
                    Err(error) => {
                        tracing::error!(group, message = received.id, %error, "not done");
                        None
                    }
                },
                None => {
                    tracing::error!(group, message = received.id, "there is no such group");
                    None
                }
            };
            match done {
                Some(done) => newest = newest.max(done.received),
                None => {
                    is_stopped = true;
                    let mut failure = BatchItemFailure::default();
                    failure.item_identifier = received.id;
                    answer.batch_item_failures.push(failure);
                }
            }
        }
    }
    let mut happened = std::mem::take(&mut function.happened);
    happened.add(Happened::of_answer(answer.batch_item_failures.len()));
    let (pipeline, stages) = (&function.settings.pipeline, &function.settings.stage_names());
    let newest = newest.filter(|_| function.settings.rows_table.is_some());
    Teller { pipeline, function: stages, now: now_ns() }.tell(&happened, newest);
    answer
}

fn read(message: SqsMessage, group: &str, function: &Function) -> Message {
    let number = |name: &str| message.attributes.get(name).and_then(|text| text.parse::<u128>().ok());
    let partition = match &function.settings.entrance {
        Some(_) => (group == ENTRANCE_GROUP).then_some(0),
        None => group.parse().ok().filter(|partition| *partition < function.settings.partitions),
    };
    let sent_ms = number("SentTimestamp").and_then(|ms| i64::try_from(ms).ok()).unwrap_or_default();
    Message {
        partition,
        received: Received {
            sequence: number("SequenceNumber"),
            sent: sent_ms.saturating_mul(1_000_000),
            id: message.message_id.unwrap_or_default(),
            body: message.body.unwrap_or_default(),
        },
    }
}
