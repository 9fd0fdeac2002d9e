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
pub(crate) struct Faults {
    /// Of the calls: the process is killed in the middle.
    pub(crate) killed: u32,
    /// Of the batches: delivered once more when they are done.
    pub(crate) twice: u32,
    /// Of the batches: given to two processes at the same time.
    pub(crate) at_once: u32,
    /// Of the writes to DynamoDB: refused because there are too many.
    pub(crate) throttled: u32,
    /// Of the requests that change something, of any service: carried out, and then the connection breaks.
    pub(crate) lost: u32,
    /// Of the requests: they come late, even when who has sent them is no more.
    pub(crate) late: u32,
}

/// How often each has happened.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) killed: AtomicU64,
    pub(crate) twice: AtomicU64,
    pub(crate) at_once: AtomicU64,
    pub(crate) throttled: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) late: AtomicU64,
}

impl Told {
    /// What was to happen, and never did.
    pub(crate) fn missing(&self, faults: &Faults) -> Option<&'static str> {
        let wanted = [faults.killed, faults.twice, faults.at_once, faults.throttled, faults.lost, faults.late];
        let found = self.counts().into_iter().zip(wanted);
        found.into_iter().find(|((_, count), wanted)| *wanted > 0 && *count == 0).map(|((name, _), _)| name)
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
pub(crate) fn random(seed: u64, number: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(number);
    random
}

/// Whether something happens.
pub(crate) fn chance(random: &mut ChaCha8Rng, percent: u32) -> bool {
    percent > 0 && up_to(random, 100) < percent
}

/// A number below `end`, which is above 0.
pub(crate) fn up_to(random: &mut ChaCha8Rng, end: u32) -> u32 {
    random.next_u32() % end
}
