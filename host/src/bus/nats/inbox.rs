//! Reads a partition: each message once and in order, whatever the broker delivers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    AckKind,
    consumer::{PullConsumer, pull},
    message::Acker,
    stream::LastRawMessageErrorKind,
};
use futures_util::StreamExt as _;
use tokio::task::JoinHandle;

use super::{ACK_WAIT, ANSWER_TIME_MAX, Broker, GROUP, PIN_TIME, trace_of, unavailable};
use crate::{
    bus::Message,
    error::{Error, Kind, Result},
    store::ReadFrom,
};

/// How often a reader says that it is still at it.
const SIGN_OF_LIFE: Duration = ACK_WAIT.checked_div(2).expect("two is not zero");
/// A pull ends after so long and is made again, well before the pin is lost.
const PULL_TIME: Duration = PIN_TIME.checked_div(3).expect("three is not zero");
/// How long it may take to begin to read.
const OPEN_TIME: Duration = Duration::from_millis(50);
/// Pause before the broker is asked again that did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// After so long without the next message it is looked for. A dead reader's come again after two seconds.
const GAP_LOOK: Duration = Duration::from_secs(5);
/// How often it is asked how many messages there are.
const LAG_LOOK: Duration = Duration::from_secs(5);
/// Messages that a pull asks for.
const PULL_MESSAGES: usize = 32;

/// What a message is acknowledged by, by producer and number.
type Unfinished = Arc<Mutex<BTreeMap<(String, u64), Arc<Acker>>>>;

/// Reads what a partition is given.
pub struct Inbox {
    broker: Broker,
    consumer: PullConsumer,
    messages: Option<pull::Stream>,
    /// Number of the last message that was handed out, by producer.
    read: BTreeMap<String, u64>,
    /// Messages that came before their turn.
    early: BTreeMap<(String, u64), Received>,
    /// Since when there are such messages, and none whose turn it is.
    gap_since: Option<Instant>,
    /// Messages that were delivered and are not finished.
    unfinished: Unfinished,
    signs_of_life: JoinHandle<()>,
    lag: Option<JoinHandle<()>>,
}

/// A message, with where it is stored.
pub struct Received {
    /// The message.
    pub message: Message,
    /// Its number in the stream.
    pub sequence: u64,
    /// Whether the broker has delivered it before.
    pub is_redelivered: bool,
    /// When it came.
    pub delivered: Instant,
}

impl Inbox {
    pub(super) fn new(broker: Broker, consumer: PullConsumer) -> Self {
        let unfinished = Unfinished::default();
        let signs_of_life = broker.runtime.spawn(give_signs_of_life(Arc::clone(&unfinished)));
        Self {
            broker,
            consumer,
            messages: None,
            read: BTreeMap::new(),
            early: BTreeMap::new(),
            gap_since: None,
            unfinished,
            signs_of_life,
            lag: None,
        }
    }

    /// Lets another reader have what this one has not finished. It reads again when it is asked for the next message.
    pub fn release(&mut self) {
        self.messages = None;
        self.rewind(std::iter::empty());
    }

    /// Lets another reader have the partition at once: otherwise the broker waits whether this one pulls again.
    pub fn unpin(&mut self) {
        self.messages = None;
        let (broker, info) = (self.broker.clone(), self.consumer.cached_info());
        let (name, stream) = (info.name.clone(), info.stream_name.clone());
        self.broker.say(async {
            if let Ok(stream) = broker.jetstream.get_stream(stream).await {
                let _ = stream.unpin_consumer(&name, GROUP).await;
            }
        });
    }

    /// Calls `note` now and then with the number of messages that no reader has finished, as long as `is_wanted` says so
    /// and this is there.
    pub fn watch_lag(&mut self, is_wanted: impl Fn() -> bool + Send + 'static, note: impl Fn(u64) + Send + 'static) {
        // Not the broker: its threads would end by one of themselves.
        let (jetstream, info) = (self.broker.jetstream.clone(), self.consumer.cached_info());
        let (stream, name) = (info.stream_name.clone(), info.name.clone());
        self.lag = Some(self.broker.spawn(async move {
            loop {
                tokio::time::sleep(LAG_LOOK).await;
                if !is_wanted() {
                    continue;
                }
                // A broker that does not answer leaves the last number standing.
                let asked = jetstream.get_consumer_from_stream::<pull::Config, _, _>(&name, &stream).await;
                if let Ok(consumer) = asked {
                    let info = consumer.cached_info();
                    note(info.num_pending + info.num_ack_pending as u64);
                }
            }
        }));
    }

    /// Goes on behind what was committed. What was delivered before is delivered again.
    pub fn rewind(&mut self, read: impl Iterator<Item = (String, u64)>) {
        self.read = read.collect();
        self.early.clear();
        self.gap_since = None;
        let unfinished = std::mem::take(&mut *self.unfinished.lock().unwrap_or_else(PoisonError::into_inner));
        // What is not said is delivered again a little later.
        self.broker.say(async {
            for acker in unfinished.into_values() {
                let _ = acker.ack_with(AckKind::Nak(None)).await;
            }
        });
    }

    /// Whether messages are waiting for one before them: it has been given to another reader, or lost.
    pub const fn has_gap(&self) -> bool {
        self.gap_since.is_some()
    }

    /// Whether a message is missing that will not come, because the broker does not have it: it has lost it, or another
    /// reader has finished it. Looked for when one has been missing for some time.
    pub fn has_lost(&mut self) -> bool {
        let Some(earliest) = self.early.values().map(|early| early.sequence).min() else { return false };
        if self.gap_since.is_none_or(|since| since.elapsed() < GAP_LOOK) {
            return false;
        }
        self.gap_since = Some(Instant::now());
        let info = self.consumer.cached_info();
        let (stream, subject) = (info.stream_name.clone(), info.config.filter_subject.clone());
        let first = self.broker.wait(async {
            let stream = self.broker.jetstream.get_stream(stream).await?;
            match stream.get_first_raw_message_by_subject(&subject, 1).await {
                Ok(message) => Ok(Some(message.sequence)),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(async_nats::Error::from(error)),
            }
        });
        // A broker that cannot say is asked again. Numbers and places in the stream rise together.
        first.is_ok_and(|first| first.is_none_or(|first| first >= earliest))
    }

    /// The next message, if there is one within `patience`.
    ///
    /// # Errors
    /// `Corrupt` when what was delivered is no message.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Received>> {
        if let Some(received) = self.take_early() {
            return Ok(Some(received));
        }
        // What is begun anew each time would never be there.
        let patience = if self.messages.is_none() { patience.max(OPEN_TIME) } else { patience };
        let broker = self.broker.clone();
        let delivered = broker.wait(async { tokio::time::timeout(patience, self.deliver()).await });
        match delivered {
            Err(_) => Ok(None),
            Ok(Ok(message)) => self.sort_in(message),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the broker does not deliver; asking again");
                self.messages = None;
                // Nothing is lost as long as nobody can say what there is.
                self.gap_since = None;
                std::thread::sleep(RETRY_PAUSE.min(patience));
                Ok(None)
            }
        }
    }

    /// Says what has been read by what is stored. The broker hears it meanwhile, with a second acknowledgement that it
    /// has; what it did not hear it delivers again, and then hears that it was read before.
    pub fn finish(&self, stored: &BTreeMap<String, ReadFrom>) {
        if let Some(work) = self.acknowledge(stored) {
            self.broker.spawn(async {
                let _ = tokio::time::timeout(ANSWER_TIME_MAX, work).await;
            });
        }
    }

    /// As [`Self::finish`], and waits until the broker knows.
    pub fn finish_and_wait(&self, stored: &BTreeMap<String, ReadFrom>) {
        if let Some(work) = self.acknowledge(stored) {
            self.broker.say(work);
        }
    }

    fn acknowledge(&self, stored: &BTreeMap<String, ReadFrom>) -> Option<impl Future<Output = ()> + Send + 'static> {
        let mut finished: Vec<Arc<Acker>> = Vec::new();
        let is_stored =
            |(producer, number): &(String, u64)| stored.get(producer).is_some_and(|read| *number <= read.last);
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, acker| {
            let is_stored = is_stored(key);
            if is_stored {
                finished.push(Arc::clone(acker));
            }
            !is_stored
        });
        let last = finished.pop()?;
        Some(async move {
            for acker in finished {
                let _ = acker.ack().await;
            }
            let _ = last.double_ack().await;
        })
    }

    async fn deliver(&mut self) -> std::result::Result<async_nats::jetstream::Message, async_nats::Error> {
        if self.messages.is_none() {
            let messages = self.consumer.stream().group(GROUP).expires(PULL_TIME);
            self.messages = Some(messages.max_messages_per_batch(PULL_MESSAGES).messages().await?);
        }
        let next = match &mut self.messages {
            Some(messages) => messages.next().await,
            None => None,
        };
        Ok(next.ok_or("the consumer is gone")??)
    }

    fn sort_in(&mut self, delivered: async_nats::jetstream::Message) -> Result<Option<Received>> {
        let info = delivered.info().map_err(|error| unavailable("read a delivery".to_owned(), error))?;
        let (sequence, is_redelivered) = (info.stream_sequence, info.delivered > 1);
        let mut message = Message::decode(&delivered.payload)
            .map_err(|error| Error::caused(Kind::Corrupt, format!("read message {sequence}"), error))?;
        message.trace = trace_of(delivered.headers.as_ref());
        let (_, acker) = delivered.split();
        let key = (message.producer.clone(), message.number);
        let read = self.read.get(&key.0).copied().unwrap_or(0);
        if key.1 <= read && !self.is_unfinished(&key) {
            // Committed before; the broker has not heard.
            self.broker.say(async {
                let _ = acker.ack().await;
            });
            return Ok(None);
        }
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), Arc::new(acker));
        if key.1 > read {
            self.early.insert(key, Received { message, sequence, is_redelivered, delivered: Instant::now() });
        }
        Ok(self.take_early())
    }

    fn is_unfinished(&self, key: &(String, u64)) -> bool {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }

    fn take_early(&mut self) -> Option<Received> {
        let is_next =
            |(producer, number): &&(String, u64)| self.read.get(producer).copied().unwrap_or(0) + 1 == *number;
        let Some(key) = self.early.keys().find(is_next).cloned() else {
            if !self.early.is_empty() {
                self.gap_since.get_or_insert_with(Instant::now);
            }
            return None;
        };
        self.gap_since = None;
        let received = self.early.remove(&key)?;
        self.read.insert(key.0, key.1);
        Some(received)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.signs_of_life.abort();
        if let Some(lag) = &self.lag {
            lag.abort();
        }
    }
}

async fn give_signs_of_life(unfinished: Unfinished) {
    loop {
        tokio::time::sleep(SIGN_OF_LIFE).await;
        let ackers: Vec<Arc<Acker>> = {
            let unfinished = unfinished.lock().unwrap_or_else(PoisonError::into_inner);
            unfinished.values().cloned().collect()
        };
        for acker in ackers {
            // One that is not heard is delivered again.
            let _ = acker.ack_with(AckKind::Progress).await;
        }
    }
}
