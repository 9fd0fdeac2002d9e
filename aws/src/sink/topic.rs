//! Alarms, told to whoever subscribed to a topic. At least once: a topic cannot be asked what it has.

use aws_sdk_sns::Client;

use super::SinkError;

/// Bytes of a message.
const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// A topic.
#[derive(Clone, Debug)]
pub struct Topic {
    client: Client,
    arn: String,
    /// What is written above the message in a mail: at most 100 letters.
    subject: String,
}

impl Topic {
    /// A topic that is there, and hears of the alarms of this pipeline.
    pub fn new(client: Client, arn: String, pipeline: &str) -> Self {
        Self { client, arn, subject: format!("Tapeline {pipeline}: alarm") }
    }

    /// Tells alarms, JSON lines, as few messages as they fit into.
    ///
    /// # Errors
    /// When a message was not taken; those before it were.
    pub async fn tell(&self, alarms: &[String]) -> Result<(), SinkError> {
        let mut rest = alarms;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |line: &&String| {
                bytes += line.len() + 1;
                bytes <= MESSAGE_BYTES_MAX
            };
            let count = rest.iter().take_while(fits).count();
            if count == 0 {
                // It is in its table. An alarm is some hundred bytes, unless a symbol is no symbol.
                tracing::error!("an alarm is too long to be told");
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let (some, others) = rest.split_at(count);
            let publish = self.client.publish().topic_arn(&self.arn).subject(&self.subject);
            let published = publish.message(some.join("\n")).send().await;
            published.map_err(|error| SinkError::new("SNS", error))?;
            rest = others;
        }
        Ok(())
    }
}
