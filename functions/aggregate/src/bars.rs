//! Tumbling bars: those of a symbol that are open, what a trade does to them, and which is final next.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tapeline_sdk::{Bar, StateError, StateParts, Unit};

use crate::sum::Sum;

/// Number of the part of the first bar; chunks of trades count from below. A signed 64-bit key still holds it.
pub(crate) const FIRST_PART: u64 = 1 << 62;
/// From the coarsest on.
const UNITS: [Unit; 4] = [Unit::Seconds, Unit::Milliseconds, Unit::Microseconds, Unit::Nanoseconds];

/// What a bar needs to know of a trade.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Print<'a> {
    pub(crate) time: i64,
    pub(crate) price: f64,
    /// 0 when the vendor gave none.
    pub(crate) size: f64,
    pub(crate) unit: Unit,
    pub(crate) source: &'a str,
}

/// All bars of a symbol that are open.
#[derive(Debug)]
pub(crate) struct Bars {
    series: Vec<Series>,
    /// How many of the series, from the first, take trades; the others only end.
    taking: usize,
    /// End of the bar that ends first, `i64::MAX` without bars.
    end_min: i64,
    /// End of the last bar that became final: all bars that end until then are over.
    final_until: i64,
    opened_count: u64,
    closed: Vec<u64>,
}

/// The open bars of one length, by start.
#[derive(Debug, Default)]
struct Series {
    length: i64,
    open: VecDeque<OpenBar>,
}

/// A bar that can still change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenBar {
    #[serde(skip)]
    number: u64,
    #[serde(skip)]
    is_changed: bool,
    pub(crate) start: i64,
    length: i64,
    /// The source of its first trade.
    pub(crate) source: String,
    unit: u8,
    /// Event time from which on it is to be given out again.
    show_at: i64,
    count: u64,
    prices: Sum,
    open: f64,
    open_time: i64,
    high: f64,
    low: f64,
    close: f64,
    close_time: i64,
    volume: Sum,
    turnover: Sum,
}

impl Default for Bars {
    fn default() -> Self {
        Self {
            series: Vec::new(),
            taking: 0,
            end_min: i64::MAX,
            final_until: i64::MIN,
            opened_count: 0,
            closed: Vec::new(),
        }
    }
}

impl Bars {
    /// Puts a trade into the bars of all lengths; `show` gets those that it is time to give out again.
    #[inline]
    pub(crate) fn take(&mut self, print: &Print<'_>, step: Option<i64>, mut show: impl FnMut(&OpenBar)) {
        for at in 0..self.taking {
            let Some(bar) = self.bar_of(at, print, step) else { continue };
            bar.take(print);
            if let Some(step) = step
                && print.time >= bar.show_at
            {
                bar.show_at = print.time.saturating_add(step);
                show(bar);
            }
        }
    }

    /// End of the open bar that ends first.
    #[inline]
    pub(crate) fn end_min(&self) -> Option<i64> {
        Some(self.end_min).filter(|end| *end != i64::MAX)
    }

    /// End of the last bar that became final.
    #[inline]
    pub(crate) fn final_until(&self) -> i64 {
        self.final_until
    }

    /// Takes out the bar that ends first, of those the shortest: nothing will change it any more.
    pub(crate) fn take_final(&mut self) -> Option<OpenBar> {
        let first =
            |series: &&mut Series| series.open.front().map_or((i64::MAX, i64::MAX), |bar| (bar.end(), bar.length));
        let bar = self.series.iter_mut().min_by_key(first)?.open.pop_front()?;
        self.end_min =
            self.series.iter().filter_map(|series| series.open.front()).map(OpenBar::end).min().unwrap_or(i64::MAX);
        self.final_until = self.final_until.max(bar.end());
        self.closed.push(FIRST_PART + bar.number);
        Some(bar)
    }

    /// Saves the bars that changed. A bar has no time of expiry: it is deleted when it becomes final.
    pub(crate) fn save(&mut self, parts: &mut StateParts) {
        self.closed.drain(..).for_each(|part| parts.delete(part));
        let open = self.series.iter_mut().flat_map(|series| series.open.iter_mut());
        for bar in open.filter(|bar| bar.is_changed) {
            // Serializing into memory fails only for types without a fixed length, which a bar has not.
            if let Ok(bytes) = postcard::to_allocvec(bar) {
                parts.save(FIRST_PART + bar.number, bytes, None);
                bar.is_changed = false;
            }
        }
    }

    /// How many bars were ever opened; [`resume`](Self::resume) takes it.
    pub(crate) fn opened_count(&self) -> u64 {
        self.opened_count
    }

    /// Goes on from what was saved besides the bars.
    pub(crate) fn resume(&mut self, opened_count: u64, final_until: i64) {
        self.opened_count = opened_count;
        self.final_until = final_until;
    }

    /// Takes a saved bar back.
    ///
    /// # Errors
    /// When the bytes are not those of a bar.
    pub(crate) fn load(&mut self, part: u64, bytes: &[u8]) -> Result<(), StateError> {
        let bar = postcard::from_bytes(bytes).map_err(|error| StateError::Corrupt(error.to_string()))?;
        let bar = OpenBar { number: part - FIRST_PART, ..bar };
        self.end_min = self.end_min.min(bar.end());
        let at = self.series.iter().position(|series| series.length == bar.length).unwrap_or_else(|| {
            self.series.push(Series { length: bar.length, open: VecDeque::new() });
            self.series.len() - 1
        });
        if let Some(series) = self.series.get_mut(at) {
            let at = series.open.partition_point(|open| open.start < bar.start);
            series.open.insert(at, bar);
        }
        Ok(())
    }

    /// Takes trades for bars of these lengths from now on. Bars of other lengths that are open end when they end.
    pub(crate) fn set_lengths(&mut self, lengths: &[i64]) {
        let mut old = std::mem::take(&mut self.series);
        for length in lengths {
            let known = old.iter().position(|series| series.length == *length).map(|at| old.swap_remove(at));
            self.series.push(known.unwrap_or(Series { length: *length, open: VecDeque::new() }));
        }
        self.taking = lengths.len();
        old.retain(|series| !series.open.is_empty());
        self.series.append(&mut old);
    }

    #[inline]
    fn bar_of(&mut self, series_at: usize, print: &Print<'_>, step: Option<i64>) -> Option<&mut OpenBar> {
        let series = self.series.get(series_at)?;
        let newest = series.open.len().wrapping_sub(1);
        let at = match series.open.get(newest) {
            Some(bar) if bar.start <= print.time && print.time < bar.end() => newest,
            _ => self.find_or_open(series_at, print, step)?,
        };
        self.series.get_mut(series_at)?.open.get_mut(at)
    }

    #[cold]
    fn find_or_open(&mut self, series_at: usize, print: &Print<'_>, step: Option<i64>) -> Option<usize> {
        let series = self.series.get_mut(series_at)?;
        let start = print.time.saturating_sub(print.time.rem_euclid(series.length));
        let at = series.open.partition_point(|bar| bar.start < start);
        if series.open.get(at).is_none_or(|bar| bar.start != start) {
            let bar = OpenBar::new(self.opened_count, start, series.length, print, step);
            self.opened_count += 1;
            self.end_min = self.end_min.min(bar.end());
            series.open.insert(at, bar);
        }
        Some(at)
    }
}

impl OpenBar {
    fn new(number: u64, start: i64, length: i64, print: &Print<'_>, step: Option<i64>) -> Self {
        Self {
            number,
            is_changed: true,
            start,
            length,
            source: print.source.to_owned(),
            unit: print.unit.max(unit_of(length)) as u8,
            show_at: step.map_or(i64::MAX, |step| start.saturating_add(step)),
            count: 0,
            prices: Sum::default(),
            open: print.price,
            open_time: print.time,
            high: print.price,
            low: print.price,
            close: print.price,
            close_time: print.time,
            volume: Sum::default(),
            turnover: Sum::default(),
        }
    }

    #[inline]
    fn take(&mut self, print: &Print<'_>) {
        self.is_changed = true;
        self.count += 1;
        self.prices.add(print.price);
        self.volume.add(print.size);
        self.turnover.add(print.price * print.size);
        self.high = self.high.max(print.price);
        self.low = self.low.min(print.price);
        if print.time < self.open_time {
            (self.open, self.open_time) = (print.price, print.time);
        }
        if print.time >= self.close_time {
            (self.close, self.close_time) = (print.price, print.time);
        }
    }

    #[inline]
    fn end(&self) -> i64 {
        self.start.saturating_add(self.length)
    }

    /// The unit of its first trade, or a finer one that its start needs.
    pub(crate) fn unit(&self) -> Unit {
        UNITS.get(usize::from(self.unit)).copied().unwrap_or(Unit::Nanoseconds)
    }

    /// The bar as it is given out.
    pub(crate) fn row(&self, final_: bool) -> Bar {
        let volume = self.volume.value();
        Bar {
            interval: self.length.unsigned_abs(),
            count: self.count,
            average: self.prices.value() / self.count as f64,
            open: self.open,
            high: self.high,
            low: self.low,
            close: self.close,
            volume,
            vwap: if volume == 0.0 { f64::NAN } else { self.turnover.value() / volume },
            final_,
        }
    }
}

/// The coarsest unit in which bars of a length start.
fn unit_of(length: i64) -> Unit {
    UNITS.into_iter().find(|unit| length % unit.ns() == 0).unwrap_or(Unit::Nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(time: i64, price: f64) -> Print<'static> {
        Print { time, price, size: 2.0, unit: Unit::Seconds, source: "s" }
    }

    fn bars(lengths: &[i64]) -> Bars {
        let mut bars = Bars::default();
        bars.set_lengths(lengths);
        bars
    }

    fn finals(bars: &mut Bars) -> Vec<(i64, i64, u64)> {
        std::iter::from_fn(|| bars.take_final()).map(|bar| (bar.start, bar.length, bar.count)).collect()
    }

    #[test]
    fn bars_end_in_order_whatever_the_order_of_trades() {
        let mut bars = bars(&[20, 10]);
        for time in [25, 3, -1, 12, 9, 25] {
            bars.take(&print(time, 1.0), None, |_| panic!("nothing is to be shown"));
        }
        assert_eq!(bars.end_min(), Some(0));
        let expected = [(-10, 10, 1), (-20, 20, 1), (0, 10, 2), (10, 10, 1), (0, 20, 3), (20, 10, 2), (20, 20, 2)];
        assert_eq!(finals(&mut bars), expected);
        assert_eq!((bars.end_min(), bars.final_until()), (None, 40));
    }

    #[test]
    fn first_and_last_are_by_time_then_by_arrival() {
        let mut bars = bars(&[100]);
        for (time, price) in [(50, 1.0), (40, 2.0), (40, 3.0), (60, 4.0), (60, 5.0), (55, 6.0)] {
            bars.take(&print(time, price), None, |_| ());
        }
        let row = bars.take_final().unwrap().row(true);
        assert_eq!((row.open, row.close, row.high, row.low, row.volume), (2.0, 5.0, 6.0, 1.0, 12.0));
    }

    #[test]
    fn a_bar_is_shown_at_most_once_a_step() {
        let mut bars = bars(&[100]);
        let mut shown = Vec::new();
        for time in [5, 10, 12, 19, 11, 20, 55, 60, 65, 100, 105] {
            bars.take(&print(time, 1.0), Some(10), |bar| shown.push((time, bar.count)));
        }
        assert_eq!(shown, [(10, 2), (20, 6), (55, 7), (65, 9)]);
    }

    #[test]
    fn a_bar_reads_back_and_a_length_that_is_gone_takes_no_trades() {
        let mut old = bars(&[100, 7]);
        old.take(&print(50, 1.5), Some(10), |_| ());
        let mut parts = StateParts::default();
        old.save(&mut parts);
        let bar = &old.series[0].open[0];
        let mut new = Bars::default();
        new.load(FIRST_PART + bar.number, &postcard::to_allocvec(bar).unwrap()).unwrap();
        assert_eq!(&new.series[0].open[0], bar);
        new.set_lengths(&[200]);
        new.take(&print(60, 1.5), None, |_| ());
        assert_eq!(finals(&mut new), [(0, 100, 1), (0, 200, 1)]);
    }

    #[test]
    fn the_unit_can_show_the_start() {
        for (length, unit) in
            [(60_000_000_000, Unit::Seconds), (250_000_000, Unit::Milliseconds), (7, Unit::Nanoseconds)]
        {
            assert_eq!(unit_of(length), unit);
        }
    }
}
