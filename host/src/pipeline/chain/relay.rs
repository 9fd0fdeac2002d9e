//! Gives out dead letters as they are stored.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::{
    bus::nats::{Broker, DeadLetterStream},
    error::Result,
    pipeline::{Committed, Observer},
    segment::Tapped,
    store::{SqliteStore, Store as _},
};

/// Letters that are in memory at once.
const PAGE_LETTERS: u64 = 100;
/// How often it is looked for new letters.
const LOOK: Duration = Duration::from_millis(200);
/// Pause before a broker is asked again that did not take a letter.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What the writer and the relay tell each other.
#[derive(Default)]
pub(super) struct Signal {
    has_new: AtomicBool,
    is_over: AtomicBool,
}

impl Signal {
    /// Nothing is stored any more.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }
}

/// Tells the relay of commits with dead letters.
pub(super) struct Telling {
    pub(super) signal: std::sync::Arc<Signal>,
    pub(super) inner: Box<dyn Observer>,
}

impl Observer for Telling {
    fn committed(&mut self, commit: &Committed, tapped: Vec<Tapped>) {
        if commit.dead_letters > 0 {
            self.signal.has_new.store(true, Ordering::Release);
        }
        self.inner.committed(commit, tapped);
    }
}

/// Gives out the letters of a store until nothing is stored any more. What the broker does not take then is given out by
/// the next process: letters wait in the store.
pub(super) fn relay(broker: &Broker, pipeline: &str, replicas: usize, store: &SqliteStore, signal: &Signal) {
    // What an earlier process has not given out.
    signal.has_new.store(true, Ordering::Release);
    loop {
        let is_over = signal.is_over.load(Ordering::Acquire);
        if signal.has_new.swap(false, Ordering::AcqRel)
            && let Err(error) = give_out(broker, pipeline, replicas, store)
        {
            let reason = super::super::job::error_text(&error);
            tracing::warn!(reason, "dead letters wait in the tables' store until the broker takes them");
            signal.has_new.store(true, Ordering::Release);
            if !is_over {
                thread::sleep(RETRY_PAUSE);
            }
        }
        if is_over {
            return;
        }
        thread::sleep(LOOK);
    }
}

fn give_out(broker: &Broker, pipeline: &str, replicas: usize, store: &SqliteStore) -> Result<()> {
    // Opened each time: only the stream knows what was stored of what nobody answered to.
    let mut stream = DeadLetterStream::open(broker, pipeline, store.identity()?, replicas)?;
    loop {
        let letters = store.dead_letters(stream.last() + 1, PAGE_LETTERS)?;
        if letters.is_empty() {
            return Ok(());
        }
        for letter in &letters {
            stream.give_out(letter)?;
        }
    }
}
