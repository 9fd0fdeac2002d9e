//! A function of a pipeline and the queue into it, called by hand, with all that it asks of AWS counted.

use std::{ops::AddAssign, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aws_sdk_sqs::{
    Client,
    types::{Message, MessageSystemAttributeName},
};
use serde_json::Value;

use super::cost::{MEMORY_MB, MEMORY_MB_OF_A_PROCESSOR};
use crate::lambda::{
    instance::{Function, Instance},
    mapping,
    meter::{CHUNK_BYTES, Counted, Items, Meter},
    way::Way,
};

/// What SQS gives at once, and Lambda takes at once.
const MESSAGES_MAX: i32 = 10;
/// Nobody else gets a message for so long, s.
const INVISIBLE: i32 = 120;
/// Time of a call.
const CALL: Duration = Duration::from_secs(30);

/// A function and the queue into it.
pub struct Hop {
    function: Function,
    client: Client,
    queue: String,
    port: u16,
    items: Arc<Items>,
    /// The process that takes what comes, and what it asks.
    running: Option<(Instance, Arc<Meter>)>,
}

/// Calls of functions.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    /// How many.
    pub count: u64,
    /// From when each had its event to its answer, here.
    pub took: Duration,
    /// Time of a processor in them.
    pub cpu: Duration,
    /// What Lambda would take money for: whole milliseconds of each call, waiting as long as here, and with the part of a
    /// processor that a function has.
    pub lambda_ms: u64,
}

impl AddAssign<&Self> for Calls {
    fn add_assign(&mut self, other: &Self) {
        self.count += other.count;
        self.took += other.took;
        self.cpu += other.cpu;
        self.lambda_ms += other.lambda_ms;
    }
}

/// What was taken out of a queue.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// The calls that took it.
    pub calls: Calls,
    /// Messages.
    pub messages: u64,
    /// Chunks of messages.
    pub chunks: u64,
}

/// The first answer of a process.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// From exec to the answer.
    pub whole: Duration,
    /// What of it a service was asked in.
    pub services: Duration,
    /// Time of a processor until then.
    pub cpu: Duration,
}

impl Hop {
    /// A function without a process.
    pub const fn new(function: Function, client: Client, queue: String, port: u16, items: Arc<Items>) -> Self {
        Self { function, client, queue, port, items, running: None }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.function.name
    }

    /// The process that takes what comes.
    async fn running(&mut self) -> Result<&mut (Instance, Arc<Meter>)> {
        if self.running.is_none() {
            self.running = Some(self.start().await?);
        }
        self.running.as_mut().context("it was started")
    }

    async fn start(&self) -> Result<(Instance, Arc<Meter>)> {
        let meter = Meter::new(Arc::clone(&self.items));
        let way = Way::metered(self.port, Arc::clone(&meter)).await?;
        Ok((Instance::start(&self.function, way).await?, meter))
    }

    /// Calls it with an event.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn call(&mut self, event: &Value) -> Result<(Value, Calls)> {
        let name = self.function.name.clone();
        let (process, _) = self.running().await?;
        // The first call begins before its process, whose start is not paid by the call.
        let (billed, cpu) = (process.billed(), process.cpu()?);
        let answer = process.call(event, CALL).await.with_context(|| format!("function {name}"))?;
        let (took, cpu) = (process.billed() - billed, process.cpu()?.saturating_sub(cpu));
        let there = took.saturating_sub(cpu) + cpu.mul_f64(MEMORY_MB_OF_A_PROCESSOR / MEMORY_MB);
        let lambda_ms = (there.as_secs_f64() * 1e3).ceil() as u64;
        Ok((answer, Calls { count: 1, took, cpu, lambda_ms }))
    }

    /// Gives it all that is in its queue, as many messages at once as there are.
    ///
    /// # Errors
    /// When one is not done.
    pub async fn take_all(&mut self) -> Result<Taken> {
        let mut taken = Taken::default();
        loop {
            let messages = self.receive().await?;
            if messages.is_empty() {
                return Ok(taken);
            }
            let event = mapping::event(&messages)?;
            let (answer, calls) = self.call(&event).await?;
            self.delete(&messages, &event, &answer).await?;
            taken.calls += &calls;
            for message in &messages {
                taken.messages += 1;
                taken.chunks += (message.body().unwrap_or_default().len() as u64).div_ceil(CHUNK_BYTES).max(1);
            }
        }
    }

    /// Gives what is in its queue to a process that was started for it; `None` where there is nothing.
    ///
    /// # Errors
    /// When it is not done.
    pub async fn take_cold(&self) -> Result<Option<Start>> {
        let messages = self.receive().await?;
        if messages.is_empty() {
            return Ok(None);
        }
        let event = mapping::event(&messages)?;
        let (mut process, meter) = self.start().await?;
        let answer = process.call(&event, CALL).await.with_context(|| format!("function {}", self.function.name))?;
        let (whole, cpu) = (process.first_answer().context("an answer")?, process.cpu()?);
        let start = Start { whole, services: meter.take().busy, cpu };
        self.delete(&messages, &event, &answer).await?;
        Ok(Some(start))
    }

    /// What was asked of AWS since this was asked last.
    pub fn counted(&self) -> Counted {
        self.running.as_ref().map(|(_, meter)| meter.take()).unwrap_or_default()
    }

    /// The most memory that its process has had, bytes.
    ///
    /// # Errors
    /// When it has none.
    pub fn peak_bytes(&self) -> Result<u64> {
        self.running.as_ref().context("a process")?.0.peak_bytes()
    }

    async fn receive(&self) -> Result<Vec<Message>> {
        let receive = self.client.receive_message().queue_url(&self.queue).max_number_of_messages(MESSAGES_MAX);
        let receive = receive.message_system_attribute_names(MessageSystemAttributeName::All);
        Ok(receive.visibility_timeout(INVISIBLE).wait_time_seconds(0).send().await?.messages.unwrap_or_default())
    }

    async fn delete(&self, messages: &[Message], event: &Value, answer: &Value) -> Result<()> {
        let done = mapping::done(event, answer)?.len();
        ensure!(done == messages.len(), "{}: {done} of {} messages were done", self.function.name, messages.len());
        for message in messages {
            let delete = self.client.delete_message().queue_url(&self.queue);
            delete.set_receipt_handle(message.receipt_handle.clone()).send().await?;
        }
        Ok(())
    }
}
