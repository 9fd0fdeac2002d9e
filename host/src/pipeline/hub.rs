//! Subjects that can be watched: what each stage gives out, once it is committed; of a chain, as it is given to the broker.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tapeline_events::Kind;
use tokio::sync::broadcast;

use crate::{
    error::{Error, Result},
    segment::{Tap, Tapped},
};

/// Lines that wait for a slow watcher; older ones are skipped, and the watcher is told how many.
const WATCHER_LINES_MAX: usize = 8_192;

/// Watchers of a pipeline's subjects.
#[derive(Clone)]
pub struct Hub {
    pipeline: Arc<str>,
    stages: Arc<Vec<String>>,
    senders: Arc<Mutex<BTreeMap<String, broadcast::Sender<Arc<str>>>>>,
}

/// What somebody watches.
pub struct Subscription {
    /// Receives event lines.
    pub receiver: broadcast::Receiver<Arc<str>>,
    /// Only events of this kind.
    pub kind: Option<Kind>,
}

impl Subscription {
    /// Whether the watcher wants this event line.
    pub fn wants(&self, line: &str) -> bool {
        self.kind.is_none_or(|kind| line.starts_with(&format!("{{\"kind\":\"{}\"", kind.as_str())))
    }
}

impl Hub {
    /// The subjects of a pipeline with these stages, in order.
    pub fn new(pipeline: &str, stages: Vec<String>) -> Self {
        Self { pipeline: pipeline.into(), stages: Arc::new(stages), senders: Arc::default() }
    }

    /// Watches a subject: `<pipeline>.<stage>.<partition>`, a stage's name, or a kind (`averages`), which is what
    /// enters the writer.
    ///
    /// # Errors
    /// `NotFound` when there is no such subject; names those that there are.
    pub fn subscribe(&self, subject: &str) -> Result<Subscription> {
        let given = subject.strip_prefix(&format!("{}.", self.pipeline)).unwrap_or(subject);
        let given = given.strip_suffix(".0").unwrap_or(given);
        let watched = &self.stages[..self.stages.len().saturating_sub(1)];
        let (stage, kind) = match (watched.iter().find(|stage| *stage == given), Kind::parse(given)) {
            (Some(stage), _) => (stage, None),
            (None, Some(kind)) if !watched.is_empty() => (&watched[watched.len() - 1], Some(kind)),
            _ => {
                let subjects = watched.iter().map(|stage| format!("{}.{stage}.0", self.pipeline));
                let subjects = subjects.collect::<Vec<_>>().join(", ");
                return Err(Error::not_found(format!(
                    "find subject {subject:?}: there are {subjects}, and kinds such as averages"
                )));
            }
        };
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = senders.entry(stage.clone()).or_insert_with(|| broadcast::channel(WATCHER_LINES_MAX).0);
        Ok(Subscription { receiver: sender.subscribe(), kind })
    }

    /// Gives committed lines to those who watch.
    pub fn publish(&self, tapped: Vec<Tapped>) {
        let senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        for stage in tapped {
            let Some(sender) = senders.get(&stage.stage) else { continue };
            for line in stage.lines {
                // It fails when nobody watches any more, which is no loss.
                let _ = sender.send(line.into());
            }
        }
    }
}

impl Tap for Hub {
    fn is_watched(&self, stage: &str) -> bool {
        let senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.get(stage).is_some_and(|sender| sender.receiver_count() > 0)
    }
}
