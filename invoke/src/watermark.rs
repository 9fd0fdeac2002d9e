//! The watermark of a partition: how far event time has certainly come.
//!
//! The watermark stays `delay` behind the newest event time and is told to the stages in steps of `every`, as marks in
//! the sequence of events. Marks depend on the events alone, so that the same events always have the same marks
//! between them, however they are cut into batches. An event stamped further ahead of its receive time than
//! `max_future` is not believed: it moves nothing.

use crate::{
    batch::{self, Element},
    contract::{Batch, Group, MARK, is_end},
};

/// How the watermark follows event time; all in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatermarkSettings {
    /// How far it stays behind the newest event time.
    pub delay: i64,
    /// Step of the marks.
    pub every: i64,
    /// How far ahead of its receive time an event may be stamped. Receive clocks can be seconds off.
    pub max_future: i64,
}

/// Newest event time and watermark of a partition.
#[derive(Debug)]
pub struct Watermark {
    settings: WatermarkSettings,
    newest: i64,
    current: i64,
}

/// Events with marks between them.
pub struct Assigned {
    /// The events that are believed, and the marks.
    pub batch: Batch,
    /// The events that are not.
    pub early: Vec<Early>,
}

/// An event from too far in the future.
pub struct Early {
    /// The event, alone in its group.
    pub group: Group,
    /// Why it is not believed.
    pub reason: String,
}

impl Watermark {
    /// A watermark before all events.
    pub const fn new(settings: WatermarkSettings) -> Self {
        Self { settings, newest: i64::MIN, current: i64::MIN }
    }

    /// Goes on from what was committed.
    pub const fn set(&mut self, newest: i64, current: i64) {
        self.newest = newest;
        self.current = current;
    }

    /// Newest event time; `i64::MIN` before the first.
    pub const fn newest(&self) -> i64 {
        self.newest
    }

    /// The watermark; `i64::MIN` before the first mark.
    pub const fn current(&self) -> i64 {
        self.current
    }

    /// Takes a mark that did not come from events. The end of all events is no time and moves nothing.
    pub fn raise(&mut self, mark: i64) {
        if !is_end(mark) {
            self.current = self.current.max(mark);
        }
    }

    /// Puts marks between the events, and takes out those that are not believed.
    pub fn assign(&mut self, batch: Batch) -> Assigned {
        let mut marks = Vec::new();
        let mut early = Vec::new();
        for (position, element) in batch::elements(&batch).enumerate() {
            let Element::Event { group, at } = element else { continue };
            let group = &batch.groups[group];
            if let Some(reason) = self.disbelieve(group, at) {
                early.push((position, reason));
            } else if let Some(mark) = self.see(group.time[at]) {
                marks.push((position, mark));
            }
        }
        let out: Vec<Early> = early
            .iter()
            .map(|(position, reason)| Early {
                group: batch::slice(&batch, *position..*position + 1).groups.swap_remove(0),
                reason: reason.clone(),
            })
            .collect();
        let batch = if marks.is_empty() { batch } else { insert(batch, &marks) };
        let batch = if early.is_empty() {
            batch
        } else {
            let mut gone = early.into_iter().map(|(position, _)| position).peekable();
            batch::retain(batch, |position| gone.next_if_eq(&position).is_none())
        };
        Assigned { batch, early: out }
    }

    fn disbelieve(&self, group: &Group, at: usize) -> Option<String> {
        let received = group.received_at(at)?;
        let ahead = group.time[at].saturating_sub(received);
        (ahead > self.settings.max_future).then(|| {
            let seconds = |ns: i64| ns as f64 / 1e9;
            format!(
                "stamped {:.3} s ahead of its receive time; at most {:.3} s are believed (watermark.max_future)",
                seconds(ahead),
                seconds(self.settings.max_future)
            )
        })
    }

    /// Takes an event's time; the mark that follows the event, if there is one.
    #[inline]
    fn see(&mut self, time: i64) -> Option<i64> {
        if time <= self.newest {
            return None;
        }
        self.newest = time;
        let reached = time.saturating_sub(self.settings.delay);
        let step = self.settings.every.max(1);
        // The next step is compared first, since a division for each event would show.
        if self.current != i64::MIN && reached < self.current.saturating_add(step) {
            return None;
        }
        self.current = reached.div_euclid(step).saturating_mul(step);
        Some(self.current)
    }
}

/// Puts each mark behind the event at its position.
fn insert(batch: Batch, marks: &[(usize, i64)]) -> Batch {
    let events = batch::event_count(&batch);
    let codes = if batch.order.is_empty() { vec![0; events] } else { batch.order };
    let mut order = Vec::with_capacity(events + marks.len());
    let mut from = 0;
    for (position, _) in marks {
        order.extend_from_slice(&codes[from..=*position]);
        order.push(MARK);
        from = position + 1;
    }
    order.extend_from_slice(&codes[from..]);
    Batch { groups: batch.groups, order, marks: marks.iter().map(|(_, mark)| *mark).collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::names::Names;

    const SECOND: i64 = 1_000_000_000;

    fn settings() -> WatermarkSettings {
        WatermarkSettings { delay: 2 * SECOND, every: SECOND, max_future: 10 * SECOND }
    }

    fn trades(times: &[i64]) -> Batch {
        let line = |seconds: &i64| {
            let time = tapeline_events::format_time(seconds * SECOND / 10, tapeline_events::Unit::Milliseconds);
            format!(r#"{{"kind":"trade","symbol":"X","time":"{time}","received":"1970-01-01T00:00:20Z","price":1}}"#)
        };
        let lines: Vec<String> = times.iter().map(line).collect();
        batch::from_lines(lines.iter().map(String::as_bytes), None, &mut Names::default()).unwrap()
    }

    fn marks(batch: &Batch) -> Vec<(usize, i64)> {
        let mut events = 0;
        let mut found = Vec::new();
        for element in batch::elements(batch) {
            match element {
                Element::Event { .. } => events += 1,
                Element::Mark(at) => found.push((events, batch.marks[at])),
            }
        }
        found
    }

    #[test]
    fn marks_follow_the_newest_event_at_a_distance() {
        let mut watermark = Watermark::new(settings());
        let assigned = watermark.assign(trades(&[100, 105, 99, 111, 140]));
        batch::check(&assigned.batch).unwrap();
        assert_eq!(marks(&assigned.batch), [(1, 8 * SECOND), (4, 9 * SECOND), (5, 12 * SECOND)]);
        assert_eq!((watermark.newest(), watermark.current()), (14 * SECOND, 12 * SECOND));
    }

    #[test]
    fn an_event_from_the_future_moves_nothing() {
        let mut watermark = Watermark::new(settings());
        let assigned = watermark.assign(trades(&[100, 301, 300]));
        assert_eq!(assigned.early.len(), 1);
        assert!(assigned.early[0].reason.contains("10.100 s ahead"), "{}", assigned.early[0].reason);
        assert_eq!(assigned.early[0].group.time, [30_100_000_000]);
        assert_eq!(batch::event_count(&assigned.batch), 2);
        assert_eq!(watermark.newest(), 30 * SECOND);
    }

    proptest! {
        #[test]
        fn cutting_the_events_otherwise_gives_the_same_marks(times in prop::collection::vec(0_i64..400, 1..60), cut in 0_usize..60) {
            let cut = cut.min(times.len());
            let mut whole = Watermark::new(settings());
            let expected = marks(&whole.assign(trades(&times)).batch);
            let mut parts = Watermark::new(settings());
            let first = parts.assign(trades(&times[..cut])).batch;
            let second = parts.assign(trades(&times[cut..])).batch;
            let mut found = marks(&first);
            found.extend(marks(&second).into_iter().map(|(at, mark)| (at + batch::event_count(&first), mark)));
            prop_assert_eq!(found, expected);
        }
    }
}
