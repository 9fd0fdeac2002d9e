//! What a good engineer would write instead: one native function with serde_json that does the job of all six stages.

use std::collections::{HashMap, HashSet, VecDeque};

use serde::Deserialize;

const MINUTE_MS: i64 = 60_000;
const WINDOWS_MS: [i64; 3] = [5 * MINUTE_MS, 10 * MINUTE_MS, 15 * MINUTE_MS];
const TOLERANCE: f64 = 0.05;

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    stream: &'a str,
    #[serde(borrow)]
    data: Trade<'a>,
}

#[derive(Deserialize)]
struct Trade<'a> {
    s: &'a str,
    t: u64,
    p: &'a str,
    q: &'a str,
    #[serde(rename = "T")]
    time: i64,
}

#[derive(Default)]
struct Symbol {
    seen: HashSet<u64>,
    trades: VecDeque<(i64, f64)>,
    windows: [Window; 3],
    bar: Option<Bar>,
    base: usize,
}

#[derive(Default, Clone, Copy)]
struct Window {
    start: usize,
    sum: f64,
    previous: Option<f64>,
}

#[derive(Clone, Copy)]
struct Bar {
    start: i64,
    count: u64,
    sum: f64,
    open: f64,
    high: f64,
    low: f64,
    close: f64,
    volume: f64,
    notional: f64,
}

/// What came of the frames, so that nothing is optimized away.
#[derive(Default, Debug)]
pub struct Result {
    /// Trades.
    pub trades: u64,
    /// Bars, as lines of CSV.
    pub bars: Vec<String>,
    /// Alarms, as lines of CSV.
    pub alarms: Vec<String>,
}

/// Does the whole job.
pub fn run<'a>(frames: impl Iterator<Item = &'a [u8]>) -> Result {
    let mut result = Result::default();
    let mut symbols: HashMap<String, Symbol> = HashMap::new();
    for frame in frames {
        let Ok(message) = serde_json::from_slice::<Message<'_>>(frame) else { continue };
        if !message.stream.ends_with("@trade") {
            continue;
        }
        let trade = message.data;
        let (Ok(price), Ok(size)) = (trade.p.parse::<f64>(), trade.q.parse::<f64>()) else { continue };
        let symbol = match symbols.get_mut(trade.s) {
            Some(symbol) => symbol,
            None => symbols.entry(trade.s.to_owned()).or_default(),
        };
        if !symbol.seen.insert(trade.t) {
            continue;
        }
        result.trades += 1;
        take_bar(symbol, &trade, price, size, &mut result);
        take_windows(symbol, &trade, price, &mut result);
    }
    result
}

fn take_bar(symbol: &mut Symbol, trade: &Trade<'_>, price: f64, size: f64, result: &mut Result) {
    let start = trade.time.div_euclid(MINUTE_MS) * MINUTE_MS;
    match &mut symbol.bar {
        Some(bar) if bar.start >= start => {
            bar.count += 1;
            bar.sum += price;
            bar.high = bar.high.max(price);
            bar.low = bar.low.min(price);
            bar.close = price;
            bar.volume += size;
            bar.notional += price * size;
        }
        _ => {
            if let Some(bar) = symbol.bar.take() {
                let (average, vwap) = (bar.sum / bar.count as f64, bar.notional / bar.volume);
                result.bars.push(format!(
                    "{},{},{},{average},{},{},{},{},{},{vwap}",
                    trade.s, bar.start, bar.count, bar.open, bar.high, bar.low, bar.close, bar.volume
                ));
            }
            symbol.bar = Some(Bar {
                start,
                count: 1,
                sum: price,
                open: price,
                high: price,
                low: price,
                close: price,
                volume: size,
                notional: price * size,
            });
        }
    }
}

fn take_windows(symbol: &mut Symbol, trade: &Trade<'_>, price: f64, result: &mut Result) {
    symbol.trades.push_back((trade.time, price));
    let end = symbol.base + symbol.trades.len();
    for (window, length) in symbol.windows.iter_mut().zip(WINDOWS_MS) {
        window.sum += price;
        while let Some((time, old)) = symbol.trades.get(window.start - symbol.base)
            && *time <= trade.time - length
        {
            window.sum -= old;
            window.start += 1;
        }
        let average = window.sum / (end - window.start) as f64;
        if let Some(previous) = window.previous
            && (average - previous).abs() > TOLERANCE
        {
            result.alarms.push(format!("{},{length},{},{},{previous},{average}", trade.s, trade.time, trade.t));
        }
        window.previous = Some(average);
    }
    let oldest = symbol.windows.iter().map(|window| window.start).min().unwrap_or(0);
    symbol.trades.drain(..oldest - symbol.base);
    symbol.base = oldest;
}
