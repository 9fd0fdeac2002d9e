//! What is counted of each partition of each segment that this host works on.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::{
    pipeline::{Committed, Observer},
    segment::Tapped,
};

/// Shortest time that is told apart.
const SECONDS_MIN: f64 = 0.000_5;
/// Each bucket is half as wide again as the one before it, so that a quantile is known to a fifth; the last ends at 22 s.
const SECONDS_GROWTH: f64 = 1.5;
const SECONDS_BUCKETS: u16 = 27;
/// Each bucket of events is four times the one before it; the last ends at 65,536.
const EVENTS_BUCKETS: u16 = 9;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    stage: String,
    partition: u32,
}

pub(super) struct Partitions {
    events_in: Family<PartitionLabel, Counter>,
    events_out: Family<PartitionLabel, Counter>,
    lag: Family<PartitionLabel, Gauge>,
    owned: Family<PartitionLabel, Gauge>,
    redelivered: Family<PartitionLabel, Counter>,
    commit_duration: Family<PartitionLabel, Histogram>,
    commit_events: Family<PartitionLabel, Histogram>,
    latency: Family<PartitionLabel, Histogram>,
}

/// Counts what a worker does on one partition. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct PartitionMetrics {
    events_in: Counter,
    events_out: Counter,
    lag: Gauge,
    owned: Gauge,
    redelivered: Counter,
    commit_duration: Histogram,
    commit_events: Histogram,
    latency: Histogram,
    /// When messages came that are not committed, and how many events they have.
    uncommitted: Arc<Mutex<(Vec<Instant>, u64)>>,
    /// When messages came whose commit is under way.
    committing: Arc<Mutex<Vec<Instant>>>,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(SECONDS_MIN, SECONDS_GROWTH, SECONDS_BUCKETS))
}

fn events() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 4.0, EVENTS_BUCKETS))
}

impl Partitions {
    pub(super) fn new() -> Self {
        Self {
            events_in: Family::default(),
            events_out: Family::default(),
            lag: Family::default(),
            owned: Family::default(),
            redelivered: Family::default(),
            commit_duration: Family::new_with_constructor(seconds),
            commit_events: Family::new_with_constructor(events),
            latency: Family::new_with_constructor(seconds),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("partition");
        registry.register("events_in", "Events that a worker of this host was given", self.events_in.clone());
        registry.register("events_out", "Events that it gave out", self.events_out.clone());
        let lag = "Messages of the partition that are not finished";
        registry.register("lag_messages", lag, self.lag.clone());
        registry.register("owned", "Whether this host works on the partition", self.owned.clone());
        let redelivered = "Messages that the broker had delivered before";
        registry.register("redelivered_messages", redelivered, self.redelivered.clone());
        let commits = self.commit_duration.clone();
        registry.register_with_unit("commit_duration", "Time that a commit took", Unit::Seconds, commits);
        registry.register("commit_events", "Events of a commit", self.commit_events.clone());
        let latency = self.latency.clone();
        let help = "Time from a message's receipt to the commit of what came of it";
        registry.register_with_unit("receipt_to_commit", help, Unit::Seconds, latency);
    }

    pub(super) fn of(&self, stage: &str, partition: u32) -> PartitionMetrics {
        let label = PartitionLabel { stage: stage.to_owned(), partition };
        PartitionMetrics {
            events_in: self.events_in.get_or_create(&label).clone(),
            events_out: self.events_out.get_or_create(&label).clone(),
            lag: self.lag.get_or_create(&label).clone(),
            owned: self.owned.get_or_create(&label).clone(),
            redelivered: self.redelivered.get_or_create(&label).clone(),
            commit_duration: self.commit_duration.get_or_create(&label).clone(),
            commit_events: self.commit_events.get_or_create(&label).clone(),
            latency: self.latency.get_or_create(&label).clone(),
            uncommitted: Arc::default(),
            committing: Arc::default(),
        }
    }
}

impl PartitionMetrics {
    /// Notes a message with so many events.
    pub fn received(&self, events: u64, is_redelivered: bool, at: Instant) {
        self.events_in.inc_by(events);
        self.redelivered.inc_by(u64::from(is_redelivered));
        let mut uncommitted = self.uncommitted.lock().unwrap_or_else(PoisonError::into_inner);
        uncommitted.0.push(at);
        uncommitted.1 += events;
    }

    /// Notes how many messages are not finished.
    pub fn lags(&self, messages: u64) {
        self.lag.set(i64::try_from(messages).unwrap_or(i64::MAX));
    }

    /// Whether this host works on the partition.
    pub fn is_owned(&self) -> bool {
        self.owned.get() > 0
    }

    /// Notes whether this host works on the partition.
    pub fn owns(&self, is_owned: bool) {
        self.owned.set(i64::from(is_owned));
        if !is_owned {
            self.lag.set(0);
        }
        // What another worker goes on with is not committed here.
        *self.uncommitted.lock().unwrap_or_else(PoisonError::into_inner) = (Vec::new(), 0);
        self.committing.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Observer for PartitionMetrics {
    fn committed(&mut self, commit: &Committed, _: Vec<Tapped>) {
        let (receipts, events) = std::mem::take(&mut *self.uncommitted.lock().unwrap_or_else(PoisonError::into_inner));
        // A commit of several partitions may have nothing of this one.
        if receipts.is_empty() {
            return;
        }
        self.events_out.inc_by(commit.events_out);
        self.commit_events.observe(events as f64);
        self.committing.lock().unwrap_or_else(PoisonError::into_inner).extend(receipts);
    }

    fn stored(&mut self, took: Duration) {
        let receipts = std::mem::take(&mut *self.committing.lock().unwrap_or_else(PoisonError::into_inner));
        if receipts.is_empty() {
            return;
        }
        self.commit_duration.observe(took.as_secs_f64());
        for receipt in receipts {
            self.latency.observe(receipt.elapsed().as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;

    use super::*;

    #[test]
    fn a_partition_is_counted_from_receipt_to_commit() {
        let metrics = Metrics::new();
        let mut partition = metrics.partition("dedup", 3);
        partition.owns(true);
        partition.lags(5);
        partition.received(100, false, Instant::now() - Duration::from_secs(2));
        partition.received(28, true, Instant::now());
        let commit = Committed { events_out: 120, ..Committed::default() };
        partition.committed(&commit, Vec::new());
        partition.stored(Duration::from_millis(3));
        let text = metrics.encode(0);
        let label = "{stage=\"dedup\",partition=\"3\"}";
        for line in [
            format!("tapeline_partition_events_in_total{label} 128"),
            format!("tapeline_partition_events_out_total{label} 120"),
            format!("tapeline_partition_lag_messages{label} 5"),
            format!("tapeline_partition_owned{label} 1"),
            format!("tapeline_partition_redelivered_messages_total{label} 1"),
            format!("tapeline_partition_commit_duration_seconds_count{label} 1"),
            format!("tapeline_partition_commit_events_sum{label} 128"),
            format!("tapeline_partition_receipt_to_commit_seconds_count{label} 2"),
            "tapeline_partition_receipt_to_commit_seconds_sum{stage=\"dedup\",partition=\"3\"} 2.".to_owned(),
        ] {
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn what_another_worker_goes_on_with_does_not_count() {
        let metrics = Metrics::new();
        let mut partition = metrics.partition("dedup", 0);
        partition.received(100, false, Instant::now());
        partition.owns(false);
        partition.committed(&Committed::default(), Vec::new());
        partition.stored(Duration::ZERO);
        let text = metrics.encode(0);
        assert!(text.contains("receipt_to_commit_seconds_count{stage=\"dedup\",partition=\"0\"} 0"), "{text}");
    }
}
