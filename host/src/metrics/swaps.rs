//! What is counted of versions that come and go.

use std::time::Duration;

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::StageLabel;

/// Shortest pause that is told apart; each bucket is twice as wide as the one before it, the last ends at 3 s.
const SECONDS_MIN: f64 = 0.000_1;
const BUCKETS: u16 = 16;

pub(super) struct Swaps {
    swaps: Family<StageLabel, Counter>,
    rollbacks: Family<StageLabel, Counter>,
    pause: Histogram,
}

impl Swaps {
    pub(super) fn new() -> Self {
        let pause = Histogram::new(exponential_buckets(SECONDS_MIN, 2.0, BUCKETS));
        Self { swaps: Family::default(), rollbacks: Family::default(), pause }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("swaps", "Versions that took a stage's place in a worker", self.swaps.clone());
        registry.register("rollbacks", "Versions that a worker took back", self.rollbacks.clone());
        let help = "How long a worker stood still for a version to take a stage's place";
        registry.register_with_unit("swap_pause", help, Unit::Seconds, self.pause.clone());
    }

    pub(super) fn swapped(&self, stage: &str, pause: Duration) {
        self.swaps.get_or_create(&StageLabel { stage: stage.to_owned() }).inc();
        self.pause.observe(pause.as_secs_f64());
    }

    pub(super) fn rolled_back(&self, stage: &str) {
        self.rollbacks.get_or_create(&StageLabel { stage: stage.to_owned() }).inc();
    }
}
