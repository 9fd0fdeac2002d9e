//! What brings the messages of a FIFO queue to a function, as an event source mapping of AWS Lambda does: batches of up to
//! ten, in order; what is done is deleted, and what is not comes again. It does so with faults.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aws_sdk_sqs::{
    Client,
    types::{Message, MessageSystemAttributeName},
};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    faults::{Faults, Told, chance, random, up_to},
    instance::{Function, Instance, NoAnswer},
    way::{Last, Way},
};

/// What SQS gives at once.
const MESSAGES_MAX: u32 = 10;
/// Nobody else gets a message for so long, s. It is given back as soon as it is not done.
const INVISIBLE: i32 = 120;
/// How long SQS is waited for, s.
const WAIT: i32 = 1;
/// Time of a call, as `[aws]` of a pipeline file has it.
const CALL: Duration = Duration::from_secs(30);
/// Processes of a function: the group of a batch is given to two at most at once.
const PROCESSES: usize = 2;
/// Calls that may have no answer although nobody was killed.
const FAILURES_MAX: u32 = 20;

/// A queue and its function.
pub struct Mapping {
    client: Client,
    queue: String,
    function: Function,
    /// The port of AWS.
    port: u16,
    faults: Faults,
    told: Arc<Told>,
    seed: u64,
    random: ChaCha8Rng,
    processes: [Option<Instance>; PROCESSES],
    started: u64,
    failures: u32,
}

/// What a process is killed by.
enum Death {
    /// Time.
    After(Duration),
    /// A request, and what becomes of it.
    At(u32, Last),
}

impl Mapping {
    /// Nothing is asked yet. What goes wrong depends on the seed.
    pub fn new(
        client: Client,
        (queue, function): (String, Function),
        port: u16,
        (faults, told): (Faults, Arc<Told>),
        seed: u64,
    ) -> Self {
        let (random, processes) = (random(seed, 0), [const { None }; PROCESSES]);
        Self { client, queue, function, port, faults, told, seed, random, processes, started: 0, failures: 0 }
    }

    /// Brings messages until there are none, and none can come any more because whoever sends them has ended.
    ///
    /// # Errors
    /// When too many calls have no answer, or one has done less than it did before.
    pub async fn run(mut self, has_ended: &AtomicBool) -> Result<()> {
        loop {
            let is_last = has_ended.load(Ordering::Acquire);
            let some = 1 + up_to(&mut self.random, MESSAGES_MAX).cast_signed();
            let receive = self.client.receive_message().queue_url(&self.queue).max_number_of_messages(some);
            let receive = receive.message_system_attribute_names(MessageSystemAttributeName::All);
            let receive = receive.visibility_timeout(INVISIBLE).wait_time_seconds(if is_last { 0 } else { WAIT });
            let messages = receive.send().await?.messages.unwrap_or_default();
            if messages.is_empty() && is_last {
                return Ok(());
            }
            if !messages.is_empty() {
                let function = self.function.name.clone();
                self.bring(&messages).await.with_context(|| format!("function {function}"))?;
            }
        }
    }

    /// Brings a batch, and deletes what is done of it.
    async fn bring(&mut self, messages: &[Message]) -> Result<()> {
        let event = event(messages)?;
        let mut done = if chance(&mut self.random, self.faults.at_once) {
            Told::count(&self.told.at_once);
            self.call_both(&event).await?
        } else {
            self.call(0, &event).await?
        };
        if chance(&mut self.random, self.faults.twice) {
            Told::count(&self.told.twice);
            let other = up_to(&mut self.random, PROCESSES as u32) as usize;
            let again = self.call(other, &event).await?;
            ensure!(self.faults.killed > 0 || again.is_superset(&done), "what was done is not done any more");
            done.extend(again);
        }
        for message in messages {
            let (id, receipt) = (message.message_id().unwrap_or_default(), message.receipt_handle.clone());
            if done.contains(id) {
                let delete = self.client.delete_message().queue_url(&self.queue);
                delete.set_receipt_handle(receipt).send().await?;
            } else {
                let give_back = self.client.change_message_visibility().queue_url(&self.queue);
                give_back.set_receipt_handle(receipt).visibility_timeout(0).send().await?;
            }
        }
        Ok(())
    }

    /// Calls both processes, one of them a little later; the messages that either has done.
    async fn call_both(&mut self, event: &Value) -> Result<BTreeSet<String>> {
        for at in 0..PROCESSES {
            self.start(at).await?;
        }
        let later = Duration::from_millis(u64::from(up_to(&mut self.random, 20)));
        let deaths = [self.death(), self.death()];
        let [Some(first), Some(second)] = &mut self.processes else { return Ok(BTreeSet::new()) };
        let [one, other] = &deaths;
        let (one, other) = tokio::join!(give(first, event, one.as_ref()), async {
            sleep(later).await;
            give(second, event, other.as_ref()).await
        });
        let mut done = self.done(event, one, deaths[0].is_some())?;
        done.extend(self.done(event, other, deaths[1].is_some())?);
        Ok(done)
    }

    /// Calls a process; the messages that it has done.
    async fn call(&mut self, at: usize, event: &Value) -> Result<BTreeSet<String>> {
        self.start(at).await?;
        let death = self.death();
        let Some(process) = &mut self.processes[at] else { return Ok(BTreeSet::new()) };
        let answer = give(process, event, death.as_ref()).await;
        self.done(event, answer, death.is_some())
    }

    /// Lets a process be there.
    async fn start(&mut self, at: usize) -> Result<()> {
        if self.processes[at].as_mut().is_some_and(Instance::is_alive) {
            return Ok(());
        }
        self.started += 1;
        let random = random(self.seed, self.started);
        let way = Way::open(self.port, self.faults, random, Arc::clone(&self.told)).await?;
        self.processes[at] = Some(Instance::start(&self.function, way).await?);
        Ok(())
    }

    /// How the process of the next call is killed, if it is. A call is between ten and some thousand requests.
    fn death(&mut self) -> Option<Death> {
        if !chance(&mut self.random, self.faults.killed) {
            return None;
        }
        let random = &mut self.random;
        Some(if chance(random, 30) {
            Death::After(Duration::from_millis(u64::from(up_to(random, 150))))
        } else {
            let scale = 8 << up_to(random, 6);
            let last = [Last::Lost, Last::CarriedOut, Last::Late][up_to(random, 3) as usize];
            Death::At(up_to(random, scale), last)
        })
    }

    /// The messages of an event that were done.
    fn done(
        &mut self,
        event: &Value,
        answer: Result<Value, NoAnswer>,
        may_be_killed: bool,
    ) -> Result<BTreeSet<String>> {
        match answer {
            Ok(answer) => done(event, &answer),
            Err(NoAnswer::Ended) if may_be_killed => Ok(BTreeSet::new()),
            Err(error) => {
                self.failures += 1;
                ensure!(self.failures <= FAILURES_MAX, "too many calls had no answer; the last one: {error}");
                Ok(BTreeSet::new())
            }
        }
    }
}

async fn give(process: &mut Instance, event: &Value, death: Option<&Death>) -> Result<Value, NoAnswer> {
    match death {
        None => process.call(event, CALL).await,
        Some(Death::After(time)) => process.call_and_kill(event, CALL, *time).await,
        Some(Death::At(request, last)) => process.call_and_kill_at(event, CALL, (*request, *last)).await,
    }
}

/// What Lambda makes of messages
/// (<https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html#example-fifo-queue-message-event>).
///
/// # Errors
/// When a message has no attributes.
pub fn event(messages: &[Message]) -> Result<Value> {
    let record = |message: &Message| {
        let attributes = message.attributes().context("attributes of a message")?;
        let attributes = attributes.iter().map(|(name, value)| (name.as_str().to_owned(), Value::from(value.as_str())));
        Ok(json!({
            "messageId": message.message_id(),
            "receiptHandle": message.receipt_handle(),
            "body": message.body(),
            "attributes": attributes.collect::<serde_json::Map<String, Value>>(),
            "messageAttributes": {},
            "md5OfBody": message.md5_of_body(),
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:queue.fifo",
            "awsRegion": "us-east-1",
        }))
    };
    Ok(json!({ "Records": messages.iter().map(record).collect::<Result<Vec<Value>>>()? }))
}

/// The messages of an event that an answer does not name as failed.
///
/// # Errors
/// When it is no answer to this event.
pub fn done(event: &Value, answer: &Value) -> Result<BTreeSet<String>> {
    let ids = |list: &Value, name: &str| -> Result<BTreeSet<String>> {
        let list = list.as_array().context("a list")?;
        list.iter().map(|entry| Ok(entry[name].as_str().context("the name of a message")?.to_owned())).collect()
    };
    let failed = ids(&answer["batchItemFailures"], "itemIdentifier")?;
    let all = ids(&event["Records"], "messageId")?;
    ensure!(failed.is_subset(&all), "a message failed that was not given: {answer}");
    Ok(all.difference(&failed).cloned().collect())
}
