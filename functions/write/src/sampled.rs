//! Which averages are left out: per window, up to where rows of earlier steps are taken.

use serde::{Deserialize, Serialize};
use tapeline_sdk::{StateError, StateParts};

/// How much longer than `sample` the last row of a symbol is remembered: longer than trades come late.
const QUIET: i64 = 600_000_000_000;
/// The state has one part.
const PART: u64 = 0;

/// The last step of each window of a symbol that has a row.
///
/// An average is a row if it lies behind all of the steps that have one. So of two in one step the first to come is a row,
/// and one that comes out of order is not, once there is a row of a later step. The memory of a symbol of which no average
/// was a row for long is lost when the watermark passes `expires_at`, which always lies ahead of the watermark when it is
/// set: so it is lost at the same place in the sequence of events and marks, whoever deletes it, and when.
#[derive(Default)]
pub(crate) struct Sampled {
    saved: Saved,
    is_changed: bool,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    expires_at: i64,
    /// Length of a window, and the end of the last step that has a row.
    windows: Vec<(u64, i64)>,
}

impl Default for Saved {
    fn default() -> Self {
        Self { expires_at: i64::MIN, windows: Vec::new() }
    }
}

impl Sampled {
    /// Whether an average of the window at `time` is a row. `sample` is above 0.
    pub(crate) fn takes(&mut self, window: u64, time: i64, sample: i64, watermark: i64) -> bool {
        if self.saved.expires_at <= watermark {
            self.saved.windows.clear();
        }
        let end = time.div_euclid(sample).saturating_add(1).saturating_mul(sample);
        match self.saved.windows.iter_mut().find(|(known, _)| *known == window) {
            Some((_, last)) if time < *last => return false,
            Some((_, last)) => *last = end,
            None => self.saved.windows.push((window, end)),
        }
        let expires_at = time.max(watermark).saturating_add(sample).saturating_add(QUIET);
        self.saved.expires_at = self.saved.expires_at.max(expires_at);
        self.is_changed = true;
        true
    }

    pub(crate) fn expires_at(&self) -> i64 {
        self.saved.expires_at
    }

    pub(crate) fn save(&mut self, parts: &mut StateParts) {
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        // Serializing into memory fails only for types without a fixed length, which this is not.
        if let Ok(bytes) = postcard::to_allocvec(&self.saved) {
            parts.save(PART, bytes, Some(self.saved.expires_at));
        }
    }

    pub(crate) fn load(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        self.saved = postcard::from_bytes(bytes).map_err(|error| StateError::Corrupt(error.to_string()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_step_and_window_is_taken() {
        let mut sampled = Sampled::default();
        let mut takes = |window, time| sampled.takes(window, time, 10, i64::MIN);
        assert!(takes(1, 5));
        assert!(!takes(1, 9));
        assert!(takes(2, 9));
        assert!(takes(1, 10));
        assert!(takes(1, 29));
        assert!(!takes(1, 15), "a later step has a row");
        assert!(takes(1, 30));
    }

    #[test]
    fn averages_far_behind_the_watermark_are_sampled_too() {
        let mut sampled = Sampled::default();
        assert!(sampled.takes(1, 5, 10, QUIET * 2));
        assert!(!sampled.takes(1, 6, 10, QUIET * 2));
        assert!(sampled.expires_at() > QUIET * 2);
    }

    #[test]
    fn the_bytes_are_read_back() {
        let mut sampled = Sampled::default();
        sampled.takes(1, -5, 10, i64::MIN);
        let mut again = Sampled::default();
        again.load(&postcard::to_allocvec(&sampled.saved).unwrap()).unwrap();
        assert!(!again.takes(1, -1, 10, i64::MIN));
        assert!(again.takes(1, 0, 10, i64::MIN));
        assert!(matches!(again.load(&[1]), Err(StateError::Corrupt(_))));
    }
}
