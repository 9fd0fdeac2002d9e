//! The queue into the next function, or into the first.

use aws_sdk_sqs::Client;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{REQUESTS_MAX, SinkError};

/// A FIFO queue.
#[derive(Clone, Debug)]
pub struct Queue {
    client: Client,
    url: String,
}

/// Messages of one group, in order: what SQS knows each by, and what it says.
pub(super) type Group = (String, Vec<(String, String)>);

impl Queue {
    /// A queue that is there.
    pub const fn new(client: Client, url: String) -> Self {
        Self { client, url }
    }

    /// Sends messages: those of a group one after the other, so that each has come before the next is sent.
    ///
    /// # Errors
    /// When one was not taken; those before it in its group were.
    pub async fn send(&self, groups: Vec<Group>) -> Result<(), SinkError> {
        let sends: Vec<_> = groups.into_iter().map(|group| self.send_group(group)).collect();
        stream::iter(sends).buffer_unordered(REQUESTS_MAX).try_collect().await
    }

    async fn send_group(&self, (group, messages): Group) -> Result<(), SinkError> {
        for (known_by, body) in messages {
            let send = self.client.send_message().queue_url(&self.url).message_group_id(&group);
            let sent = send.message_deduplication_id(known_by).message_body(body).send().await;
            sent.map_err(|error| SinkError::new("SQS", error))?;
        }
        Ok(())
    }
}
