//! What is kept for a symbol: the sampling, which is saved, and where its objects are, which is not.

use tapeline_sdk::{State, StateError, StateParts};

use crate::{objects::File, sampled::Sampled};

/// How long the paths of a symbol's objects are kept ready after its last event.
const IDLE: i64 = 600_000_000_000;

/// State of a symbol.
#[derive(Default)]
pub struct Symbol {
    pub(crate) sampled: Sampled,
    pub(crate) trades: File,
    pub(crate) bars: File,
    /// Time after which nothing was done for the symbol; decides about memory alone.
    idle_at: Option<i64>,
}

impl Symbol {
    /// Notes that there was an event.
    #[inline]
    pub(crate) fn touch(&mut self, time: i64, watermark: i64) {
        self.idle_at = self.idle_at.max(Some(time.max(watermark).saturating_add(IDLE)));
    }
}

impl State for Symbol {
    const VERSION: u32 = 1;

    fn save(&mut self, parts: &mut StateParts) {
        self.sampled.save(parts);
    }

    fn load(&mut self, _: u64, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        if version != Self::VERSION {
            return Err(StateError::Version(version));
        }
        self.sampled.load(bytes)
    }

    #[inline]
    fn expires_at(&self) -> Option<i64> {
        Some(self.sampled.expires_at()).max(self.idle_at)
    }
}
