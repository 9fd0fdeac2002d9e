//! Stores commits beside the work that follows them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    ANSWER_TIME_MAX, Broker, Hop,
    batch::{Part, Refusal},
    position::read_position,
    unavailable,
};
use crate::error::{Error, Kind, Result};

/// Pause before a batch is tried again that the broker did not take.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A thread that stores one commit at a time, as often as it takes; it ends when this is dropped and the commit that it
/// has, if any, is stored or refused.
pub(super) struct Committer {
    orders: mpsc::Sender<Order>,
    answers: mpsc::Receiver<Result<Stored>>,
    is_busy: bool,
}

/// A commit that is to be stored.
pub(super) struct Order {
    /// What is stored together: the position first.
    pub(super) together: Vec<Part>,
    /// What follows from it, and is published then.
    pub(super) then: Vec<Part>,
    /// Identity of the commit.
    pub(super) commit: String,
}

/// A commit that is stored.
pub(super) struct Stored {
    /// Number in the stream of its first message.
    pub(super) sequence: u64,
    /// How long it took.
    pub(super) took: Duration,
}

impl Committer {
    /// A committer of a producer's. When the host stops it gives up what the broker does not take.
    pub(super) fn start(broker: Broker, hop: Hop, producer: String, is_stopping: Arc<AtomicBool>) -> Self {
        let (orders, taken) = mpsc::channel::<Order>();
        let (answer, answers) = mpsc::channel();
        thread::spawn(move || {
            let work = Work { broker, hop, producer, is_stopping };
            for order in taken {
                // Nobody to hear it goes back to what is committed, and sees it there.
                let begun = Instant::now();
                let stored = work.carry_out(&order);
                let _ = answer.send(stored.map(|sequence| Stored { sequence, took: begun.elapsed() }));
            }
        });
        Self { orders, answers, is_busy: false }
    }

    /// Begins to store a commit, once the one before it has been settled.
    ///
    /// # Errors
    /// `Internal` when its thread is gone.
    pub(super) fn begin(&mut self, order: Order) -> Result<()> {
        self.is_busy = true;
        self.orders.send(order).map_err(|_| gone())
    }

    /// What was stored; `None` when there is nothing to wait for, or it is not done and one does not wait.
    ///
    /// # Errors
    /// `Conflict` when another worker has committed since; `Unavailable` when the host stops and the broker does not
    /// answer.
    pub(super) fn settle(&mut self, waits: bool) -> Result<Option<Stored>> {
        if !self.is_busy {
            return Ok(None);
        }
        let answer = if waits {
            self.answers.recv().map_err(|_| gone())?
        } else {
            match self.answers.try_recv() {
                Ok(answer) => answer,
                Err(mpsc::TryRecvError::Empty) => return Ok(None),
                Err(mpsc::TryRecvError::Disconnected) => return Err(gone()),
            }
        };
        self.is_busy = false;
        answer.map(Some)
    }
}

fn gone() -> Error {
    Error::new(Kind::Internal, "commit: the thread that does it has ended")
}

struct Work {
    broker: Broker,
    hop: Hop,
    producer: String,
    is_stopping: Arc<AtomicBool>,
}

impl Work {
    fn carry_out(&self, order: &Order) -> Result<u64> {
        let sequence = self.store(&order.together, &order.commit)?;
        while let Err(error) = self.broker.publish_all(&order.then) {
            if self.is_stopping.load(Ordering::Acquire) {
                return Err(error);
            }
            thread::sleep(RETRY_PAUSE);
        }
        Ok(sequence)
    }

    /// Stores a batch, as often as it takes.
    fn store(&self, parts: &[Part], commit: &str) -> Result<u64> {
        let mut has_failed = false;
        loop {
            let answer = async { tokio::time::timeout(ANSWER_TIME_MAX, self.broker.store_together(parts)).await };
            let refusal = match self.broker.wait(answer) {
                Ok(Ok(sequence)) => return Ok(sequence),
                Ok(Err(refusal)) => refusal,
                Err(late) => Refusal::Unavailable(late.into()),
            };
            match refusal {
                Refusal::Overtaken => {
                    // It may have been stored by an attempt whose answer was lost.
                    match read_position(&self.broker, &self.hop, &self.producer) {
                        Ok((sequence, Some(position))) if has_failed && position.head.commit == commit => {
                            return Ok(sequence);
                        }
                        Ok(_) => {
                            let message = "be the only owner: another worker has taken this over";
                            return Err(Error::new(Kind::Conflict, message));
                        }
                        Err(error) if self.is_stopping.load(Ordering::Acquire) => return Err(error),
                        // Whose commit it is can be asked again.
                        Err(_) => thread::sleep(RETRY_PAUSE),
                    }
                }
                Refusal::Unavailable(error) => {
                    if !has_failed {
                        let stream = self.hop.stream();
                        tracing::warn!(stream, %error, "the broker does not take a commit; trying again");
                    }
                    if self.is_stopping.load(Ordering::Acquire) {
                        return Err(unavailable("commit".to_owned(), error));
                    }
                    has_failed = true;
                    thread::sleep(RETRY_PAUSE);
                }
            }
        }
    }
}
