//! What calls functions with what is in their queues, in the place of AWS Lambda: the test says how often, and how many
//! at once.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName, QueueAttributeName};
use serde_json::{Value, json};

use crate::{function, stack::Stack};

/// What SQS gives at once.
const MESSAGES_MAX: i32 = 10;
/// How long nobody else gets what was received: longer than any batch takes.
const VISIBILITY_SECONDS: i32 = 60;
/// Between two looks into an empty queue.
const LOOK: Duration = Duration::from_millis(20);

/// How each batch is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Once, and again as long as a message of it fails.
    Once,
    /// Once more after it was done.
    Twice,
    /// To two instances of the function at the same time.
    AtOnce,
}

/// Takes the place of AWS Lambda while `work` runs: each batch of each queue is delivered in this way. Messages that fail
/// come again at once, and never go to a dead-letter queue.
///
/// # Errors
/// When a queue or a function cannot be asked, or `work` fails.
pub fn deliver<T>(stack: &Stack, delivery: Delivery, work: impl FnOnce() -> Result<T>) -> Result<T> {
    set_mappings(stack, false)?;
    let is_over = AtomicBool::new(false);
    let done = thread::scope(|scope| {
        let pollers: Vec<_> =
            stack.stages.iter().map(|stage| scope.spawn(|| poll(stack, stage, delivery, &is_over))).collect();
        let done = work();
        is_over.store(true, Ordering::Release);
        let polled = pollers.into_iter().map(|poller| poller.join().expect("a poller does not panic"));
        polled.collect::<Result<Vec<()>>>().and(done)
    });
    set_mappings(stack, true)?;
    done
}

fn poll(stack: &Stack, stage: &str, delivery: Delivery, is_over: &AtomicBool) -> Result<()> {
    let sdk = stack.account.aws.sdk();
    let (client, runtime) = (aws_sdk_sqs::Client::new(&sdk), &stack.account.runtime);
    let (queue, function) = (stack.output_of("Queue", stage)?, stack.output_of("Function", stage)?);
    let endless = client.set_queue_attributes().queue_url(queue).attributes(QueueAttributeName::RedrivePolicy, "");
    runtime.block_on(endless.send())?;
    while !is_over.load(Ordering::Acquire) {
        let receive = client.receive_message().queue_url(queue).max_number_of_messages(MESSAGES_MAX);
        let receive = receive.message_system_attribute_names(MessageSystemAttributeName::All);
        let messages =
            runtime.block_on(receive.visibility_timeout(VISIBILITY_SECONDS).send())?.messages.unwrap_or_default();
        if messages.is_empty() {
            thread::sleep(LOOK);
            continue;
        }
        let event = json!({ "Records": messages.iter().map(record).collect::<Vec<Value>>() });
        let failed = invoke(stack, function, &event, delivery)?;
        for message in &messages {
            let handle = message.receipt_handle().context("a receipt")?;
            if failed.iter().any(|id| Some(id.as_str()) == message.message_id()) {
                let show = client.change_message_visibility().queue_url(queue).receipt_handle(handle);
                runtime.block_on(show.visibility_timeout(0).send())?;
            } else {
                runtime.block_on(client.delete_message().queue_url(queue).receipt_handle(handle).send())?;
            }
        }
    }
    Ok(())
}

/// The messages that are not done, whoever was to do them.
fn invoke(stack: &Stack, function: &str, event: &Value, delivery: Delivery) -> Result<Vec<String>> {
    let aws = &stack.account.aws;
    let call = || anyhow::Ok(failures(event, function::invoke(aws, function, event)?));
    match delivery {
        Delivery::Once => call(),
        Delivery::Twice => {
            let first = call()?;
            call()?;
            Ok(first)
        }
        Delivery::AtOnce => thread::scope(|scope| {
            let other = scope.spawn(call);
            let one = call()?;
            let other = other.join().expect("a call does not panic")?;
            Ok(one.into_iter().filter(|id| other.contains(id)).collect())
        }),
    }
}

/// What the answer of a function says is not done: all of it when the call failed.
fn failures(event: &Value, answer: Option<Value>) -> Vec<String> {
    let ids = |items: &Value, name: &str| -> Vec<String> {
        let items = items.as_array().into_iter().flatten();
        items.filter_map(|item| item[name].as_str().map(str::to_owned)).collect()
    };
    match answer {
        Some(answer) => ids(&answer["batchItemFailures"], "itemIdentifier"),
        None => ids(&event["Records"], "messageId"),
    }
}

/// A message as AWS Lambda gives it.
fn record(message: &Message) -> Value {
    let attributes = message.attributes().into_iter().flatten();
    let attributes: serde_json::Map<String, Value> =
        attributes.map(|(name, value)| (name.as_str().to_owned(), value.clone().into())).collect();
    json!({
        "messageId": message.message_id(),
        "receiptHandle": message.receipt_handle(),
        "body": message.body(),
        "attributes": attributes,
        "messageAttributes": {},
        "md5OfBody": message.md5_of_body(),
        "eventSource": "aws:sqs",
        "awsRegion": crate::local_aws::REGION,
    })
}

/// Whether AWS Lambda itself delivers to the functions of a stack.
fn set_mappings(stack: &Stack, is_enabled: bool) -> Result<()> {
    let aws = &stack.account.aws;
    for stage in &stack.stages {
        let function = stack.output_of("Function", stage)?;
        function::set_mappings(aws, function, is_enabled)?;
    }
    Ok(())
}
