//! Who follows the alarms of a stack: a queue of the topic's.

use anyhow::{Context as _, Result};
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::json;

use crate::stack::Stack;

/// What SQS gives at once.
const MESSAGES_MAX: i32 = 10;

/// A queue that gets each message of a stack's topic.
pub struct Alarms<'a> {
    stack: &'a Stack,
    queue: String,
}

impl<'a> Alarms<'a> {
    /// Subscribes to the topic of a stack.
    ///
    /// # Errors
    /// When the topic or the queue cannot be used.
    pub fn follow(stack: &'a Stack) -> Result<Self> {
        let (sdk, topic) = (stack.account.aws.sdk(), stack.output("AlarmsTopicArn")?);
        let (queues, topics) = (aws_sdk_sqs::Client::new(&sdk), aws_sdk_sns::Client::new(&sdk));
        stack.account.runtime.block_on(async {
            let queue = queues.create_queue().queue_name("alarms").send().await?.queue_url;
            let queue = queue.context("the address of a queue")?;
            let name = QueueAttributeName::QueueArn;
            let attributes =
                queues.get_queue_attributes().queue_url(&queue).attribute_names(name.clone()).send().await?;
            let arn = attributes.attributes().and_then(|all| all.get(&name)).context("the name of a queue")?;
            let policy = json!({ "Version": "2012-10-17", "Statement": [{
                "Effect": "Allow", "Principal": { "Service": "sns.amazonaws.com" },
                "Action": "sqs:SendMessage", "Resource": arn, "Condition": { "ArnEquals": { "aws:SourceArn": topic } },
            }]});
            let change = queues.set_queue_attributes().queue_url(&queue);
            change.attributes(QueueAttributeName::Policy, policy.to_string()).send().await?;
            let subscribe = topics.subscribe().topic_arn(topic).protocol("sqs").endpoint(arn);
            subscribe.attributes("RawMessageDelivery", "true").send().await?;
            Ok(Self { stack, queue })
        })
    }

    /// All lines that were told since.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn lines(&self) -> Result<Vec<String>> {
        let queues = aws_sdk_sqs::Client::new(&self.stack.account.aws.sdk());
        self.stack.account.runtime.block_on(async {
            let mut lines = Vec::new();
            loop {
                let ask = queues.receive_message().queue_url(&self.queue).max_number_of_messages(MESSAGES_MAX);
                let messages = ask.send().await?.messages.unwrap_or_default();
                if messages.is_empty() {
                    return Ok(lines);
                }
                for message in messages {
                    lines.extend(message.body.unwrap_or_default().lines().map(str::to_owned));
                    let delete = queues.delete_message().queue_url(&self.queue);
                    delete.set_receipt_handle(message.receipt_handle).send().await?;
                }
            }
        })
    }
}
