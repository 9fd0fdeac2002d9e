//! Averages that slide: the trades of a symbol in order of time, and for each window the sum over its part of them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::sum::Sum;

/// What an average needs to know of a trade.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tick {
    pub(crate) time: i64,
    pub(crate) price: f64,
}

/// A window and the sum of its prices, as they are saved.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WindowSum {
    pub(crate) length: i64,
    pub(crate) sum: Sum,
}

/// All windows of a symbol. They end at the trade that came last, be it the newest or one that came out of order, and
/// slide to the next one forwards or back: this costs the trades between the two, which for most is none.
#[derive(Debug)]
pub(crate) struct Windows {
    /// By time, at one time by arrival.
    ticks: VecDeque<Tick>,
    windows: Vec<Window>,
    /// Time of the trade that came last.
    time: i64,
    /// Number of trades up to and including `time`: where the windows end.
    end: usize,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    length: i64,
    /// Index of the first trade inside.
    start: usize,
    sum: Sum,
}

/// The average of one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mean {
    pub(crate) length: i64,
    pub(crate) average: f64,
    pub(crate) count: usize,
}

impl Default for Windows {
    fn default() -> Self {
        Self { ticks: VecDeque::new(), windows: Vec::new(), time: i64::MIN, end: 0 }
    }
}

impl Windows {
    /// Slides all windows to a trade, which is one of theirs from now on.
    #[inline]
    pub(crate) fn take(&mut self, tick: Tick) {
        let in_order = self.ticks.back().is_none_or(|newest| newest.time <= tick.time);
        let at = if in_order { self.ticks.len() } else { self.count_until(tick.time) };
        for window in &mut self.windows {
            window.slide(&self.ticks, self.time, self.end..at, tick);
        }
        if in_order {
            self.ticks.push_back(tick);
        } else {
            self.ticks.insert(at, tick);
        }
        self.time = tick.time;
        self.end = at + 1;
    }

    /// The averages that end at the trade that came last, in the order of the settings.
    #[inline]
    pub(crate) fn means(&self) -> impl Iterator<Item = Mean> {
        self.windows.iter().map(|window| {
            let count = self.end - window.start;
            Mean { length: window.length, average: window.sum.value() / count as f64, count }
        })
    }

    /// Drops the trades up to and including a time that no present window reaches back to.
    #[inline]
    pub(crate) fn forget(&mut self, time: i64) {
        let mut forgotten = 0;
        while self.ticks.front().is_some_and(|oldest| oldest.time <= time) {
            self.ticks.pop_front();
            forgotten += 1;
        }
        if forgotten > 0 {
            self.end -= forgotten;
            self.windows.iter_mut().for_each(|window| window.start -= forgotten);
        }
    }

    /// Time of the trade that came last, `i64::MIN` when there was none.
    pub(crate) fn time(&self) -> i64 {
        self.time
    }

    /// What has to be saved besides the trades themselves.
    pub(crate) fn sums(&self) -> Vec<WindowSum> {
        self.windows.iter().map(|window| WindowSum { length: window.length, sum: window.sum }).collect()
    }

    /// Takes a trade back that was kept, in the order of arrival. [`resume`](Self::resume) must follow the last.
    pub(crate) fn put_back(&mut self, tick: Tick) {
        self.ticks.push_back(tick);
    }

    /// Goes on from saved sums at the trade of `time`. Sums must not be taken anew where they can be saved: they carry
    /// the rounding of all that has gone through them, and a restart must not show.
    pub(crate) fn resume(&mut self, time: i64, lengths: &[i64], saved: &[WindowSum]) {
        self.ticks.make_contiguous().sort_by_key(|tick| tick.time);
        self.time = time;
        self.end = self.count_until(time);
        self.windows = lengths.iter().map(|length| self.window(*length, saved)).collect();
    }

    fn window(&self, length: i64, saved: &[WindowSum]) -> Window {
        let start = self.count_until(self.time.saturating_sub(length)).min(self.end);
        let known = saved.iter().find(|saved| saved.length == length).map(|saved| saved.sum);
        let anew = || sum_of(&self.ticks, start..self.end);
        Window { length, start, sum: known.unwrap_or_else(anew) }
    }

    fn count_until(&self, time: i64) -> usize {
        self.ticks.partition_point(|tick| tick.time <= time)
    }
}

impl Window {
    /// Slides from the end at `was`, before trade `ends.start`, to `tick`, which is about to be trade `ends.end`.
    #[inline]
    fn slide(&mut self, ticks: &VecDeque<Tick>, was: i64, ends: std::ops::Range<usize>, tick: Tick) {
        let begin = tick.time.saturating_sub(self.length);
        if begin >= was || tick.time <= was.saturating_sub(self.length) {
            self.begin_anew(ticks, begin, ends.end);
        } else if tick.time < was {
            self.slide_back(ticks, begin, ends);
        } else {
            self.slide_on(ticks, begin, ends);
        }
        self.sum.add(tick.price);
    }

    #[inline]
    fn slide_on(&mut self, ticks: &VecDeque<Tick>, begin: i64, ends: std::ops::Range<usize>) {
        if ends.start < ends.end {
            ticks.range(ends).for_each(|entered| self.sum.add(entered.price));
        }
        while let Some(first) = ticks.get(self.start)
            && first.time <= begin
        {
            self.sum.add(-first.price);
            self.start += 1;
        }
    }

    #[cold]
    fn slide_back(&mut self, ticks: &VecDeque<Tick>, begin: i64, ends: std::ops::Range<usize>) {
        ticks.range(ends.end..ends.start).for_each(|left| self.sum.add(-left.price));
        while let Some(before) = self.start.checked_sub(1).and_then(|before| ticks.get(before))
            && before.time > begin
        {
            self.sum.add(before.price);
            self.start -= 1;
        }
    }

    /// Nothing that was inside stays inside. The trades that leave are not asked for: they may be forgotten already.
    #[cold]
    fn begin_anew(&mut self, ticks: &VecDeque<Tick>, begin: i64, end: usize) {
        self.start = ticks.partition_point(|tick| tick.time <= begin);
        self.sum = sum_of(ticks, self.start..end);
    }
}

fn sum_of(ticks: &VecDeque<Tick>, range: std::ops::Range<usize>) -> Sum {
    let mut sum = Sum::default();
    ticks.range(range).for_each(|tick| sum.add(tick.price));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(windows: &mut Windows, time: i64, price: f64) -> Vec<(f64, usize)> {
        windows.take(Tick { time, price });
        windows.means().map(|mean| (mean.average, mean.count)).collect()
    }

    #[test]
    fn a_window_is_open_at_its_start_and_closed_at_its_end() {
        let mut windows = Windows::default();
        windows.resume(i64::MIN, &[10, 20], &[]);
        assert_eq!(means(&mut windows, 5, 1.0), [(1.0, 1), (1.0, 1)]);
        assert_eq!(means(&mut windows, 14, 3.0), [(2.0, 2), (2.0, 2)]);
        assert_eq!(means(&mut windows, 15, 5.0), [(4.0, 2), (3.0, 3)], "the trade at 5 has just left the first");
        assert_eq!(means(&mut windows, 10, 7.0), [(4.0, 2), (4.0, 2)], "back to 10: those at 14 and 15 are not inside");
        assert_eq!(means(&mut windows, 15, 0.0), [(3.75, 4), (3.2, 5)]);
        assert_eq!(means(&mut windows, 1_000, 2.0), [(2.0, 1), (2.0, 1)]);
        windows.forget(980);
        assert_eq!(means(&mut windows, 1_001, 4.0), [(3.0, 2), (3.0, 2)]);
    }

    #[test]
    fn a_trade_from_far_ahead_slows_down_only_those_next_to_it() {
        let mut windows = Windows::default();
        windows.resume(i64::MIN, &[1_000], &[]);
        (0..100).for_each(|time| windows.take(Tick { time, price: 1.0 }));
        windows.take(Tick { time: 1_000_000, price: 9.0 });
        windows.take(Tick { time: 100, price: 1.0 });
        assert_eq!((windows.time, windows.end, windows.ticks.len()), (100, 101, 102));
        windows.take(Tick { time: 101, price: 1.0 });
        assert_eq!(windows.means().next(), Some(Mean { length: 1_000, average: 1.0, count: 102 }));
    }
}
