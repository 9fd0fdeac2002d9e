//! Watches what passes a hop, beside those that work on it.

use std::{collections::BTreeMap, time::Duration};

use async_nats::{Subscriber, jetstream::context::GetStreamErrorKind};
use futures_util::StreamExt as _;

use super::{Broker, unavailable};
use crate::{
    bus::Message,
    error::{Error, Result},
};

/// Sees the messages of a subject as they are given to the broker. Nobody waits for it: what it is too slow for it does
/// not see, and what a worker gives out whose commit is then refused it may see.
pub struct Follower {
    broker: Broker,
    messages: Subscriber,
    /// The last message of each producer and subject: what is given again is not shown again.
    last: BTreeMap<(String, String), u64>,
}

/// A message that passed.
pub struct Followed {
    /// Its subject.
    pub subject: String,
    /// What it holds.
    pub message: Message,
}

impl Broker {
    /// Whether there is a stream.
    ///
    /// # Errors
    /// `NotFound` when there is none; `Unavailable` when the broker cannot be asked.
    pub fn check_stream(&self, name: &str) -> Result<()> {
        match self.wait(self.jetstream.get_stream(name)) {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), GetStreamErrorKind::JetStream(_)) => {
                Err(Error::not_found(format!("find stream {name}: no chain that has it has run on this NATS server")))
            }
            Err(error) => Err(unavailable(format!("ask for stream {name}"), error)),
        }
    }

    /// Follows a subject, which may have `*` for any word.
    ///
    /// # Errors
    /// `Unavailable` when the broker cannot be reached.
    pub fn follow(&self, subject: &str) -> Result<Follower> {
        let messages = self.wait(self.client().subscribe(subject.to_owned()));
        let messages = messages.map_err(|error| unavailable(format!("follow {subject}"), error))?;
        Ok(Follower { broker: self.clone(), messages, last: BTreeMap::new() })
    }
}

impl Follower {
    /// The next message, if one passes within `patience`.
    pub fn next(&mut self, patience: Duration) -> Option<Followed> {
        let passed = self.next_raw(patience)?;
        // Whatever else somebody sends to the subject is not for us; the reader of the hop complains of it.
        let mut message = Message::decode(&passed.payload).ok()?;
        message.trace = super::trace_of(passed.headers.as_ref());
        let last = self.last.entry((passed.subject.to_string(), message.producer.clone())).or_default();
        if message.number <= *last {
            return None;
        }
        *last = message.number;
        Some(Followed { subject: passed.subject.to_string(), message })
    }

    /// The next message as it is, if one passes within `patience`.
    pub fn next_raw(&mut self, patience: Duration) -> Option<async_nats::Message> {
        let messages = &mut self.messages;
        self.broker.wait(async { tokio::time::timeout(patience, messages.next()).await }).ok().flatten()
    }
}
