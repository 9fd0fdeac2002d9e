//! Gives out dead letters as they are stored.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
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
/// How long letters are still given out when nothing is stored any more.
const END_TIME_MAX: Duration = Duration::from_secs(5);
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

    fn stored(&mut self, took: Duration) {
        self.inner.stored(took);
    }
}

/// Gives out the letters of a store until nothing is stored any more, and then what is left for a while. What the broker
/// does not take by then is given out by the next process: letters wait in the store.
pub(super) fn relay(broker: &Broker, pipeline: &str, replicas: usize, store: &SqliteStore, signal: &Signal) {
    let mut stream = None;
    // What an earlier process has not given out.
    signal.has_new.store(true, Ordering::Release);
    let mut over_since: Option<Instant> = None;
    loop {
        if signal.is_over.load(Ordering::Acquire) {
            over_since.get_or_insert_with(Instant::now);
        }
        let is_over = over_since.is_some();
        if signal.has_new.swap(false, Ordering::AcqRel) {
            let is_time_up = || over_since.is_some_and(|since| since.elapsed() > END_TIME_MAX);
            let open = || DeadLetterStream::open(broker, pipeline, store.identity()?, replicas);
            if let Err(error) = give_out(&mut stream, open, store, is_time_up) {
                let reason = super::super::job::error_text(&error);
                tracing::warn!(reason, "dead letters wait in the tables' store until the broker takes them");
                // Only the stream knows what was stored of what nobody answered to.
                stream = None;
                signal.has_new.store(true, Ordering::Release);
                if !is_over {
                    thread::sleep(RETRY_PAUSE);
                }
            }
        }
        if is_over {
            return;
        }
        thread::sleep(LOOK);
    }
}

fn give_out(
    stream: &mut Option<DeadLetterStream>,
    open: impl FnOnce() -> Result<DeadLetterStream>,
    store: &SqliteStore,
    is_time_up: impl Fn() -> bool,
) -> Result<()> {
    let stream = match stream {
        Some(stream) => stream,
        None => stream.insert(open()?),
    };
    while !is_time_up() {
        let letters = store.dead_letters(stream.last() + 1, PAGE_LETTERS)?;
        if letters.is_empty() {
            return Ok(());
        }
        stream.give_out(&letters)?;
    }
    Ok(())
}
