//! Which keys may be due: a queue of times that are never later than what the states ask for.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Time of a slot that is not in the queue.
const NEVER: i64 = i64::MAX;

/// Slots by the time at which they must be looked at. A slot whose time has moved back is looked at too early and put
/// in again, so that moving a timer with every event costs nothing.
#[derive(Default)]
pub(crate) struct Timers {
    queue: BinaryHeap<Reverse<(i64, u32)>>,
    /// For each slot, the earliest time under which it is queued.
    queued: Vec<i64>,
}

impl Timers {
    /// Looks at the slot at `time` or before.
    #[inline]
    pub(crate) fn schedule(&mut self, slot: u32, time: Option<i64>) {
        let Some(time) = time else { return };
        let at = slot as usize;
        if self.queued.len() <= at {
            self.queued.resize(at + 1, NEVER);
        }
        if time < self.queued[at] {
            self.queued[at] = time;
            self.queue.push(Reverse((time, slot)));
        }
    }

    /// Takes the slots out that are to be looked at, each once.
    pub(crate) fn take_due(&mut self, watermark: i64) -> Vec<u32> {
        let mut due = Vec::new();
        while let Some(Reverse((time, slot))) = self.queue.peek().copied() {
            if time > watermark {
                break;
            }
            self.queue.pop();
            if self.queued[slot as usize] == time {
                self.queued[slot as usize] = NEVER;
                due.push(slot);
            }
        }
        due
    }

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.queued.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_due_once_at_its_earliest_time() {
        let mut timers = Timers::default();
        timers.schedule(0, Some(10));
        timers.schedule(0, Some(5));
        timers.schedule(0, Some(7));
        timers.schedule(3, Some(6));
        timers.schedule(4, None);
        assert!(timers.take_due(4).is_empty());
        assert_eq!(timers.take_due(6), [0, 3]);
        timers.schedule(0, Some(10));
        assert_eq!(timers.take_due(100), [0]);
        assert!(timers.take_due(i64::MAX).is_empty());
    }
}
