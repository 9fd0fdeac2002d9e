//! What a pipeline counts for those who watch over it, as Prometheus reads it.
//!
//! The ledger in the store is the truth about events; these numbers are since the process started. Knows no HTTP.

mod partitions;
mod swaps;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

pub use self::partitions::PartitionMetrics;
use self::{partitions::Partitions, swaps::Swaps};
use crate::{
    pipeline::{Committed, Observer, now_ns},
    segment::Tapped,
    store::Counts,
};

/// Shortest latency that is told apart, of invocations: a call of a component alone takes a tenth of it.
const INVOCATION_SECONDS_MIN: f64 = 0.000_05;
/// Shortest latency that is told apart, of commits: one `fsync` of a fast disk.
const COMMIT_SECONDS_MIN: f64 = 0.001;
/// Each bucket is twice as wide as the one before it; the last ends at 0.8 s, or at 16 s.
const BUCKETS: u16 = 15;
/// Nanoseconds in a second.
const SECOND_NS: f64 = 1e9;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabel {
    stage: String,
    rule: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabel {
    table: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    stage: String,
    outcome: &'static str,
}

type GaugeF64 = Gauge<f64, AtomicU64>;

/// Counts since the process started. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    events_in: Family<StageLabel, Counter>,
    events_out: Family<StageLabel, Counter>,
    events_duplicate: Family<StageLabel, Counter>,
    events_late: Family<StageLabel, Counter>,
    events_dead: Family<StageLabel, Counter>,
    events_derived: Family<StageLabel, Counter>,
    events_dropped: Family<DropLabel, Counter>,
    rows: Family<TableLabel, Counter>,
    dead_letters: Counter,
    commit_duration: Histogram,
    watermark: AtomicI64,
    watermark_lag: GaugeF64,
    journal_waiting: Gauge,
    invocations: Family<OutcomeLabel, Counter>,
    invocation_duration: Family<StageLabel, Histogram>,
    partitions: Partitions,
    swaps: Swaps,
}

/// What came of a call of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Answered,
    /// What it was given was wrong.
    Refused,
    /// It failed.
    Failed,
    /// It was not called: there was no room.
    TurnedAway,
}

/// Counts calls of one stage.
#[derive(Clone)]
pub struct InvocationMetrics {
    /// In the order of [`Outcome`].
    outcomes: [Counter; 4],
    duration: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics that have counted nothing yet.
    pub fn new() -> Self {
        let mut inner = Inner {
            registry: Registry::with_prefix("tapeline"),
            events_in: Family::default(),
            events_out: Family::default(),
            events_duplicate: Family::default(),
            events_late: Family::default(),
            events_dead: Family::default(),
            events_derived: Family::default(),
            events_dropped: Family::default(),
            rows: Family::default(),
            dead_letters: Counter::default(),
            commit_duration: Histogram::new(exponential_buckets(COMMIT_SECONDS_MIN, 2.0, BUCKETS)),
            watermark: AtomicI64::new(i64::MIN),
            watermark_lag: GaugeF64::default(),
            journal_waiting: Gauge::default(),
            invocations: Family::default(),
            invocation_duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(INVOCATION_SECONDS_MIN, 2.0, BUCKETS))
            }),
            partitions: Partitions::new(),
            swaps: Swaps::new(),
        };
        inner.register();
        Self(Arc::new(inner))
    }

    /// All metrics in the OpenMetrics text format. `waiting` is the number of journal records that wait.
    pub fn encode(&self, waiting: u64) -> String {
        let inner = &self.0;
        inner.journal_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        let lag = self.watermark().map_or(f64::NAN, |watermark| (now_ns() - watermark) as f64 / SECOND_NS);
        inner.watermark_lag.set(lag);
        let mut out = String::new();
        // A string takes all that is written to it.
        let _ = text::encode(&mut out, &inner.registry);
        out
    }

    /// The watermark of the last commit, ns since the epoch.
    pub fn watermark(&self) -> Option<i64> {
        let watermark = self.0.watermark.load(Ordering::Relaxed);
        (watermark != i64::MIN).then_some(watermark)
    }

    /// Notes the watermark that a pipeline begins with.
    pub fn start_at(&self, watermark: i64) {
        self.0.watermark.store(watermark, Ordering::Relaxed);
    }

    /// What counts the work on a partition of the segment that begins with a stage.
    pub fn partition(&self, stage: &str, partition: u32) -> PartitionMetrics {
        self.0.partitions.of(stage, partition)
    }

    /// Notes that a version took a stage's place in a worker, which stood still for so long.
    pub(crate) fn swapped(&self, stage: &str, pause: Duration) {
        self.0.swaps.swapped(stage, pause);
    }

    /// Notes that a worker took a version back.
    pub(crate) fn rolled_back(&self, stage: &str) {
        self.0.swaps.rolled_back(stage);
    }

    /// What counts the calls of a stage.
    pub fn invocations(&self, stage: &str) -> InvocationMetrics {
        let outcomes = ["answered", "refused", "failed", "turned-away"];
        let outcomes = outcomes.map(|outcome| {
            self.0.invocations.get_or_create(&OutcomeLabel { stage: stage.to_owned(), outcome }).clone()
        });
        let duration = self.0.invocation_duration.get_or_create(&StageLabel { stage: stage.to_owned() }).clone();
        InvocationMetrics { outcomes, duration }
    }
}

impl InvocationMetrics {
    /// Counts a call.
    pub fn observe(&self, outcome: Outcome, took: Duration) {
        self.outcomes[outcome as usize].inc();
        self.duration.observe(took.as_secs_f64());
    }
}

impl Inner {
    fn register(&mut self) {
        let registry = &mut self.registry;
        let events = [
            ("events_in", "Events, for the first stage records, that entered a stage", &self.events_in),
            ("events_out", "Events that went on behind a stage", &self.events_out),
            ("events_duplicate", "Events that were seen before", &self.events_duplicate),
            ("events_late", "Events that came after their time was over", &self.events_late),
            ("events_dead", "Events that a stage refused", &self.events_dead),
            ("events_derived", "New events that a stage made", &self.events_derived),
        ];
        for (name, help, family) in events {
            registry.register(name, help, family.clone());
        }
        registry.register("events_dropped", "Events left out, by rule", self.events_dropped.clone());
        self.partitions.register(registry);
        self.swaps.register(registry);
        registry.register("rows", "Rows written, by table", self.rows.clone());
        registry.register("dead_letters", "Records put aside, late ones included", self.dead_letters.clone());
        let commits = self.commit_duration.clone();
        registry.register_with_unit("commit_duration", "Time that a commit took", Unit::Seconds, commits);
        let lag = self.watermark_lag.clone();
        registry.register_with_unit("watermark_lag", "How far the watermark is behind the clock", Unit::Seconds, lag);
        registry.register("journal_waiting_records", "Journal records not processed yet", self.journal_waiting.clone());
        registry.register("invocations", "Calls of a stage by itself, by outcome", self.invocations.clone());
        let calls = self.invocation_duration.clone();
        registry.register_with_unit("invocation_duration", "Time that a call of a stage took", Unit::Seconds, calls);
    }

    fn count(&self, stage: &str, counts: &Counts) {
        let label = StageLabel { stage: stage.to_owned() };
        let families = [
            (&self.events_in, counts.entered),
            (&self.events_out, counts.out),
            (&self.events_duplicate, counts.duplicate),
            (&self.events_late, counts.late),
            (&self.events_dead, counts.dead),
            (&self.events_derived, counts.derived),
        ];
        for (family, count) in families {
            family.get_or_create(&label).inc_by(count);
        }
        for (rule, count) in &counts.dropped {
            let label = DropLabel { stage: stage.to_owned(), rule: rule.clone() };
            self.events_dropped.get_or_create(&label).inc_by(*count);
        }
    }
}

impl Observer for Metrics {
    fn committed(&mut self, commit: &Committed, _: Vec<Tapped>) {
        let inner = &self.0;
        let mut stages: BTreeMap<&str, Counts> = BTreeMap::new();
        for (key, counts) in &commit.ledger {
            stages.entry(&key.stage).or_default().add(counts);
        }
        for (stage, counts) in stages {
            inner.count(stage, &counts);
        }
        for (table, count) in &commit.rows {
            inner.rows.get_or_create(&TableLabel { table: table.clone() }).inc_by(*count);
        }
        inner.dead_letters.inc_by(commit.dead_letters);
        inner.commit_duration.observe(commit.took.as_secs_f64());
        inner.watermark.store(commit.watermark, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LedgerKey;

    fn key(stage: &str, symbol: &str) -> LedgerKey {
        LedgerKey { stage_index: 1, stage: stage.to_owned(), symbol: symbol.to_owned(), day: None }
    }

    #[test]
    fn a_commit_is_counted() {
        let dropped = BTreeMap::from([("depth".to_owned(), 4)]);
        let counts = |entered, out| Counts { entered, out, dropped: dropped.clone(), ..Counts::default() };
        let commit = Committed {
            ledger: vec![(key("fetch", "A"), counts(5, 1)), (key("fetch", "B"), counts(6, 2))],
            rows: vec![("bars".to_owned(), 7)],
            dead_letters: 1,
            took: Duration::from_millis(3),
            watermark: now_ns() - 2_000_000_000,
            ..Committed::default()
        };
        let mut metrics = Metrics::new();
        metrics.clone().committed(&commit, Vec::new());
        metrics.committed(&commit, Vec::new());
        let text = metrics.encode(9);
        for line in [
            "tapeline_events_in_total{stage=\"fetch\"} 22",
            "tapeline_events_out_total{stage=\"fetch\"} 6",
            "tapeline_events_dropped_total{stage=\"fetch\",rule=\"depth\"} 16",
            "tapeline_rows_total{table=\"bars\"} 14",
            "tapeline_dead_letters_total 2",
            "tapeline_commit_duration_seconds_count 2",
            "tapeline_journal_waiting_records 9",
            "tapeline_watermark_lag_seconds 2.",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn calls_are_counted_by_outcome() {
        let metrics = Metrics::new();
        let calls = metrics.invocations("dedup");
        calls.observe(Outcome::Answered, Duration::from_micros(80));
        metrics.invocations("dedup").observe(Outcome::TurnedAway, Duration::ZERO);
        let text = metrics.encode(0);
        assert!(text.contains("tapeline_invocations_total{stage=\"dedup\",outcome=\"answered\"} 1"), "{text}");
        assert!(text.contains("outcome=\"turned-away\"} 1"), "{text}");
        assert!(text.contains("tapeline_invocation_duration_seconds_count{stage=\"dedup\"} 2"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
