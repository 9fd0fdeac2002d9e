//! What goes wrong, how often, and how often it did.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};

/// What goes wrong, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Of the calls: the process is killed in the middle.
    pub killed: u32,
    /// Of the batches: delivered once more when they are done.
    pub twice: u32,
    /// Of the batches: given to two processes at the same time.
    pub at_once: u32,
    /// Of the writes to DynamoDB: refused because there are too many.
    pub throttled: u32,
    /// Of the requests that change something, of any service: carried out, and then the connection breaks.
    pub lost: u32,
    /// Of the requests: they come late, even when who has sent them is no more.
    pub late: u32,
}

/// How often each has happened.
#[derive(Debug, Default)]
pub struct Told {
    /// Processes.
    pub killed: AtomicU64,
    /// Batches.
    pub twice: AtomicU64,
    /// Batches.
    pub at_once: AtomicU64,
    /// Writes.
    pub throttled: AtomicU64,
    /// Answers.
    pub lost: AtomicU64,
    /// Requests.
    pub late: AtomicU64,
}

impl Told {
    /// What was to happen, and never did.
    pub fn missing(&self, faults: &Faults) -> Option<&'static str> {
        let wanted = [faults.killed, faults.twice, faults.at_once, faults.throttled, faults.lost, faults.late];
        let found = self.counts().into_iter().zip(wanted);
        found.into_iter().find(|((_, count), wanted)| *wanted > 0 && *count == 0).map(|((name, _), _)| name)
    }

    pub(super) fn count(number: &AtomicU64) {
        number.fetch_add(1, Ordering::Relaxed);
    }

    fn counts(&self) -> [(&'static str, u64); 6] {
        [
            ("killed", &self.killed),
            ("twice", &self.twice),
            ("at once", &self.at_once),
            ("throttled", &self.throttled),
            ("lost", &self.lost),
            ("late", &self.late),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}

impl fmt::Display for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts().map(|(name, count)| format!("{name} {count}"));
        formatter.write_str(&counts.join(", "))
    }
}

/// A number generator of its own for each number, from one seed.
pub fn random(seed: u64, number: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(number);
    random
}

/// Whether something happens.
pub fn chance(random: &mut ChaCha8Rng, percent: u32) -> bool {
    percent > 0 && up_to(random, 100) < percent
}

/// A number below `end`, which is above 0.
pub fn up_to(random: &mut ChaCha8Rng, end: u32) -> u32 {
    random.next_u32() % end
}
