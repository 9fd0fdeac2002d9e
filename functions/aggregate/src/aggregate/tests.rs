//! The stage against a reference that knows nothing but the definitions, and against itself under cuts and restarts.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tapeline_sdk::{
    Entry, Line, Name, Row, Runner, Unit,
    bindings::{
        events::{Batch, Group, Input},
        state::Entry as Saved,
    },
    format_time, parse_time,
    testing::Harness,
};

use super::*;

const MS: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MS;
/// 2024-08-08T23:54:00Z
const START: i64 = 1_723_161_240 * SECOND;
const SYMBOLS: [&str; 3] = ["B", "A", "C"];

const BARS: [i64; 3] = [10 * SECOND, 2_500 * MS, 60 * SECOND];
const WINDOWS: [i64; 3] = [5 * SECOND, 1_300 * MS, 20 * SECOND];
const STEP: i64 = 900 * MS;

fn settings(lateness_ms: i64) -> String {
    format!(
        r#"{{"bars": ["10s", "2500ms", "1m"], "windows": ["5s", "1300ms", "20s"], "lateness": "{lateness_ms}ms",
        "provisional": "900ms"}}"#
    )
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Trade { symbol: usize, time: i64, price: f64, size: Option<f64> },
    Mark(i64),
}

/// What a host does between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    None,
    Batch,
    Checkpoint,
    Restart,
    /// A restart after the host has deleted what it may delete.
    RestartExpired,
}

/// Trades that mostly come in order, in a market that is sometimes quiet; watermarks behind, at, and ahead of them.
fn steps() -> impl Strategy<Value = Vec<(Step, Cut)>> {
    let ahead = prop_oneof![8 => 0_i64..300, 3 => Just(0_i64), 1 => 0_i64..30_000];
    let behind = prop_oneof![6 => Just(0_i64), 2 => 0_i64..3_000, 1 => 0_i64..15_000];
    let size = prop_oneof![1 => Just(None), 1 => Just(Some(0_u32)), 6 => (1_u32..10_000_000).prop_map(Some)];
    let trade = (0_usize..3, ahead.clone(), behind.clone(), 6_100_000_u32..6_200_000, size);
    let mark = prop_oneof![20 => (ahead, behind).prop_map(Some), 1 => Just(None)];
    let step = prop_oneof![6 => trade.prop_map(Ok), 1 => mark.prop_map(Err)];
    let cut = prop_oneof![
        8 => Just(Cut::None),
        2 => Just(Cut::Batch),
        1 => Just(Cut::Checkpoint),
        1 => Just(Cut::Restart),
        1 => Just(Cut::RestartExpired),
    ];
    prop::collection::vec((step, cut), 1..700).prop_map(|steps| {
        let (mut now, mut watermark) = (0, i64::MIN);
        let mut place = |step| match step {
            Ok((symbol, ahead, behind, cents, size)) => {
                now += ahead;
                let (price, size) = (f64::from(cents) / 100.0, Option::map(size, |size: u32| f64::from(size) / 1e5));
                Step::Trade { symbol, time: START + (now - behind) * MS, price, size }
            }
            Err(Some((ahead, behind))) => {
                watermark = watermark.max(START + (now + ahead - behind) * MS);
                Step::Mark(watermark)
            }
            Err(None) => Step::Mark(i64::MAX),
        };
        steps.into_iter().map(|(step, cut)| (place(step), cut)).collect()
    })
}

/// As [`steps`], with up to 60 trades in the place of one, so that there are many chunks.
fn bursts() -> impl Strategy<Value = Vec<(Step, Cut)>> {
    let bursts = (steps(), prop::collection::vec(1_i64..60, 1..20));
    bursts.prop_map(|(steps, lens)| {
        let burst = |((step, cut), len): (_, &i64)| match step {
            Step::Mark(_) => vec![(step, cut)],
            Step::Trade { symbol, time, price, size } => {
                let one = |at| Step::Trade { symbol, time: time + at % 7 * MS, price: price + at as f64 / 100.0, size };
                (0..*len).map(|at| (one(at), if at + 1 == *len { cut } else { Cut::None })).collect()
            }
        };
        steps.into_iter().zip(lens.iter().cycle()).flat_map(burst).collect()
    })
}

fn line(at: usize, step: &Step) -> String {
    match step {
        Step::Trade { symbol, time, price, size } => {
            let (symbol, time) = (SYMBOLS[*symbol], format_time(*time, Unit::Milliseconds));
            let size = size.map_or(String::new(), |size| format!(r#","size":{size}"#));
            format!(
                r#"{{"kind":"trade","symbol":"{symbol}","source":"x","id":{at},"time":"{time}","price":{price}{size}}}"#
            )
        }
        Step::Mark(time) => serde_json::to_string(&Line::watermark(*time)).unwrap(),
    }
}

/// An event of the output: what must be exact, and what may differ by rounding.
#[derive(Debug, PartialEq)]
struct Seen {
    exact: (&'static str, String, i64, Option<u64>, Vec<u64>),
    numbers: Vec<f64>,
}

fn seen(text: &str) -> Seen {
    let line = Line::parse(text.as_bytes()).unwrap();
    let Entry::Event(envelope, row) = line.entry(&mut |_| Name(0)).unwrap() else { panic!("a mark came out") };
    let id = match envelope.id {
        IdRef::Number(id) => Some(id),
        _ => None,
    };
    let (exact, numbers) = match row {
        Row::Trade(trade) => (vec![], vec![trade.price]),
        Row::Average(row) => (vec![row.window, row.count], vec![row.average, row.price]),
        Row::Bar(bar) => (
            vec![bar.interval, bar.count, u64::from(bar.final_)],
            vec![bar.average, bar.open, bar.high, bar.low, bar.close, bar.volume, bar.vwap],
        ),
        other => panic!("{other:?} came out"),
    };
    Seen { exact: (row.kind().as_str(), line.symbol.to_string(), envelope.time, id, exact), numbers }
}

fn agree(ours: &[Seen], naive: &[Seen]) -> Result<(), TestCaseError> {
    for (ours, naive) in ours.iter().zip(naive) {
        prop_assert_eq!(&ours.exact, &naive.exact, "ours {:?} naive {:?}", ours, naive);
        for (a, b) in ours.numbers.iter().zip(&naive.numbers) {
            let is_close = (a - b).abs() <= b.abs() * 1e-12 || a.is_nan() && b.is_nan();
            prop_assert!(is_close, "ours {:?} naive {:?}", ours, naive);
        }
    }
    prop_assert_eq!(ours.len(), naive.len());
    Ok(())
}

/// Keeps all trades for ever and adds them up anew each time.
#[derive(Default)]
struct Naive {
    lateness: i64,
    watermark: Option<i64>,
    symbols: BTreeMap<&'static str, NaiveSymbol>,
    out: Vec<Seen>,
    late: u64,
}

#[derive(Default)]
struct NaiveSymbol {
    trades: Vec<(i64, f64, f64)>,
    show_at: BTreeMap<(i64, i64), i64>,
    /// Open bars as (end, length).
    open: BTreeSet<(i64, i64)>,
    done: BTreeMap<i64, i64>,
}

impl Naive {
    fn take(&mut self, at: usize, step: &Step) {
        match *step {
            Step::Trade { symbol, time, price, size } => self.trade(at as u64, SYMBOLS[symbol], time, price, size),
            Step::Mark(i64::MAX) => self.end_bars(i64::MAX),
            Step::Mark(watermark) => {
                self.watermark = Some(watermark);
                self.end_bars(watermark);
            }
        }
    }

    fn trade(&mut self, id: u64, symbol: &'static str, time: i64, price: f64, size: Option<f64>) {
        let state = self.symbols.entry(symbol).or_default();
        let is_over = BARS.iter().any(|length| state.done.get(length).is_some_and(|done| time < *done));
        if self.watermark.is_some_and(|watermark| time < watermark - self.lateness) || is_over {
            self.late += 1;
            return;
        }
        state.trades.push((time, price, size.unwrap_or(0.0)));
        let event = |kind, exact| (kind, symbol.to_owned(), time, Some(id), exact);
        self.out.push(Seen { exact: event("trade", vec![]), numbers: vec![price] });
        for window in WINDOWS {
            let inside = state.trades.iter().filter(|trade| time - window < trade.0 && trade.0 <= time);
            let prices: Vec<f64> = inside.map(|trade| trade.1).collect();
            let average = prices.iter().sum::<f64>() / prices.len() as f64;
            let exact = event("average", vec![window as u64, prices.len() as u64]);
            self.out.push(Seen { exact, numbers: vec![average, price] });
        }
        for length in BARS {
            let start = time.div_euclid(length) * length;
            state.open.insert((start + length, length));
            let show_at = state.show_at.entry((start, length)).or_insert(start + STEP);
            if time >= *show_at {
                *show_at = time + STEP;
                self.out.push(state.bar(symbol, start, length, false));
            }
        }
    }

    fn end_bars(&mut self, watermark: i64) {
        let due = |end: i64| end.saturating_add(self.lateness) <= watermark;
        let first_due = |state: &NaiveSymbol| state.open.first().map(|bar| bar.0).filter(|end| due(*end));
        let mut symbols: Vec<_> = self.symbols.iter().filter_map(|(s, state)| Some((first_due(state)?, *s))).collect();
        symbols.sort();
        for (_, symbol) in symbols {
            let state = self.symbols.get_mut(symbol).unwrap();
            while let Some((end, length)) = state.open.first().copied().filter(|bar| due(bar.0)) {
                state.open.pop_first();
                state.done.insert(length, end.max(state.done.get(&length).copied().unwrap_or(i64::MIN)));
                self.out.push(state.bar(symbol, end - length, length, true));
            }
        }
    }
}

impl NaiveSymbol {
    fn bar(&self, symbol: &str, start: i64, length: i64, is_final: bool) -> Seen {
        let mut inside: Vec<_> =
            self.trades.iter().filter(|trade| start <= trade.0 && trade.0 < start + length).collect();
        let count = inside.len() as f64;
        inside.sort_by_key(|trade| trade.0);
        let prices = inside.iter().map(|trade| trade.1);
        let volume: f64 = inside.iter().map(|trade| trade.2).sum();
        let turnover: f64 = inside.iter().map(|trade| trade.1 * trade.2).sum();
        let numbers = vec![
            prices.clone().sum::<f64>() / count,
            inside.first().unwrap().1,
            prices.clone().fold(f64::MIN, f64::max),
            prices.fold(f64::MAX, f64::min),
            inside.last().unwrap().1,
            volume,
            if volume == 0.0 { f64::NAN } else { turnover / volume },
        ];
        let exact = vec![length as u64, inside.len() as u64, u64::from(is_final)];
        Seen { exact: ("bar", symbol.to_owned(), start, None, exact), numbers }
    }
}

/// Feeds all steps through a harness, cut as it says.
fn run(lateness_ms: i64, steps: &[(Step, Cut)]) -> (Vec<String>, u64) {
    let mut stage = Harness::<Aggregate>::new(&settings(lateness_ms)).unwrap();
    let mut batch = String::new();
    for (at, (step, cut)) in steps.iter().enumerate() {
        batch.push_str(&line(at, step));
        batch.push('\n');
        if *cut != Cut::None {
            stage.feed(&std::mem::take(&mut batch));
        }
        match cut {
            Cut::None | Cut::Batch => {}
            Cut::Checkpoint => drop(stage.checkpoint()),
            Cut::Restart => stage.restart().unwrap(),
            Cut::RestartExpired => {
                stage.checkpoint();
                stage.expire();
                stage.restart().unwrap();
            }
        }
    }
    stage.feed(&batch);
    let late = stage.count("late");
    assert_eq!(
        late + stage.count("forward"),
        steps.iter().filter(|(step, _)| matches!(step, Step::Trade { .. })).count() as u64
    );
    (stage.out(), late)
}

fn whole(steps: &[(Step, Cut)]) -> Vec<(Step, Cut)> {
    steps.iter().map(|(step, _)| (*step, Cut::None)).collect()
}

/// As a host in miniature whose output shows every bit.
struct Bits {
    runner: Runner<Aggregate>,
    settings: String,
    saved: BTreeMap<(String, u64), Saved>,
    watermark: i64,
    is_new: bool,
    rows: [Vec<String>; 2],
}

impl Bits {
    fn new(settings: &str) -> Self {
        Self {
            runner: Runner::new(settings).unwrap(),
            settings: settings.to_owned(),
            saved: BTreeMap::new(),
            watermark: i64::MIN,
            is_new: true,
            rows: [const { Vec::new() }; 2],
        }
    }

    fn feed(&mut self, steps: &[Step]) {
        let envelope = |symbol: usize, time| Envelope {
            symbol: Name(symbol as u32),
            source: Name(SYMBOLS.len() as u32),
            time,
            unit: Unit::Nanoseconds,
            received: None,
            id: IdRef::Absent,
        };
        let mut batch = Batch { groups: Vec::new(), order: Vec::new(), marks: Vec::new() };
        let mut group = Group::for_events_like(&envelope(0, 0), Kind::Trade);
        for step in steps {
            match *step {
                Step::Trade { symbol, time, price, size } => {
                    let size = size.unwrap_or(f64::NAN);
                    let trade = Trade { price, size, currency: None, notional: f64::NAN, lag: None, conditions: "" };
                    group.push(&envelope(symbol, time), trade.into());
                    batch.order.push(0);
                }
                Step::Mark(time) => {
                    self.watermark = if time == i64::MAX { self.watermark } else { self.watermark.max(time) };
                    batch.marks.push(time);
                    batch.order.push(254);
                }
            }
        }
        batch.groups.push(group);
        let names = SYMBOLS.iter().chain(&["x"]).map(ToString::to_string);
        let names = if std::mem::take(&mut self.is_new) { names.collect() } else { Vec::new() };
        for group in self.runner.process(Input { names, events: batch }).emitted.groups {
            let rows = &mut self.rows[usize::from(group.columns.kind() == Kind::Bar)];
            rows.extend((0..group.len()).map(|at| format!("{} {:?}", group.time[at], group.columns.row(at))));
        }
    }

    fn checkpoint(&mut self) -> Vec<Saved> {
        let changed = self.runner.checkpoint();
        for entry in &changed {
            let key = (entry.key.clone(), entry.part);
            match entry.value {
                Some(_) => drop(self.saved.insert(key, entry.clone())),
                None => drop(self.saved.remove(&key)),
            }
        }
        changed
    }

    fn restart(&mut self, is_expired: bool) {
        self.checkpoint();
        let watermark = self.watermark;
        self.saved.retain(|_, entry| !is_expired || entry.expires_at.is_none_or(|at| at > watermark));
        self.runner = Runner::new(&self.settings).unwrap();
        self.is_new = true;
        self.runner.restore(self.saved.values().cloned().collect(), watermark).unwrap();
    }

    fn heads(&mut self) -> Vec<Vec<u8>> {
        self.checkpoint();
        self.saved.values().filter(|entry| entry.part == 0).filter_map(|entry| entry.value.clone()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn bars_and_averages_are_what_their_definitions_say(
        steps in steps(),
        lateness_ms in prop_oneof![Just(0_i64), Just(1_500), Just(20_000)],
    ) {
        let mut naive = Naive { lateness: lateness_ms * MS, ..Naive::default() };
        steps.iter().enumerate().for_each(|(at, (step, _))| naive.take(at, step));
        let (lines, late) = run(lateness_ms, &whole(&steps));
        prop_assert_eq!(late, naive.late);
        agree(&lines.iter().map(|line| seen(line)).collect::<Vec<_>>(), &naive.out)?;
    }

    #[test]
    fn cuts_and_restarts_do_not_show(
        steps in steps(),
        lateness_ms in prop_oneof![Just(0_i64), Just(1_500), Just(20_000)],
    ) {
        prop_assert_eq!(run(lateness_ms, &steps), run(lateness_ms, &whole(&steps)));
    }

    #[test]
    fn not_a_bit_differs_after_restarts(steps in bursts(), lateness_ms in prop_oneof![Just(0_i64), Just(1_500)]) {
        let settings = format!(
            r#"{{"bars": ["2500ms"], "windows": ["300ms", "4s", "1s"], "lateness": "{lateness_ms}ms"}}"#
        );
        let mut whole = Bits::new(&settings);
        whole.feed(&steps.iter().map(|(step, _)| *step).collect::<Vec<_>>());
        let mut cut_up = Bits::new(&settings);
        let mut batch = Vec::new();
        for (step, cut) in steps {
            batch.push(step);
            if cut != Cut::None {
                cut_up.feed(&std::mem::take(&mut batch));
            }
            match cut {
                Cut::None | Cut::Batch => {}
                Cut::Checkpoint => drop(cut_up.checkpoint()),
                Cut::Restart | Cut::RestartExpired => cut_up.restart(cut == Cut::RestartExpired),
            }
        }
        cut_up.feed(&batch);
        prop_assert_eq!(&whole.rows, &cut_up.rows);
        // The host may have deleted some that are in the other's memory still, so compare when both have.
        for run in [&mut whole, &mut cut_up] {
            run.restart(true);
        }
        prop_assert_eq!(whole.heads(), cut_up.heads());
    }
}

fn trade_at(time: i64) -> Step {
    Step::Trade { symbol: 0, time, price: 61_000.0 + (time / MS % 977) as f64 / 100.0, size: Some(0.25) }
}

/// Bytes of a commit after 50,000 trades that all stay in the window, and 10 more.
#[test]
fn a_commit_does_not_grow_with_the_window() {
    let mut run = Bits::new(r#"{"windows": ["1day", "5m"], "bars": ["1m"]}"#);
    run.feed(&(0..50_000).map(|at| trade_at(START + at * 10 * MS)).collect::<Vec<_>>());
    let first: usize = run.checkpoint().iter().filter_map(|entry| entry.value.as_ref()).map(Vec::len).sum();
    assert!(first > 50_000 * 16, "all trades are saved: {first}");
    run.feed(&(50_000..50_010).map(|at| trade_at(START + at * 10 * MS)).collect::<Vec<_>>());
    let second: usize = run.checkpoint().iter().filter_map(|entry| entry.value.as_ref()).map(Vec::len).sum();
    assert!(second < 5_000, "{second}");
    run.restart(false);
    run.feed(&[trade_at(START + 600 * SECOND)]);
    let last = run.rows[0].split_off(run.rows[0].len() - 2);
    assert!(last[0].contains("count: 50011") && last[1].contains("count: 20010"), "{last:?}");
}

#[test]
fn what_no_trade_can_need_any_more_is_deleted() {
    let mut run = Bits::new(r#"{"windows": ["5s"], "bars": ["1m"], "lateness": "1s"}"#);
    for minute in 0..20 {
        let from = START + minute * 60 * SECOND;
        run.feed(&(0..600).map(|at| trade_at(from + at * 100 * MS)).collect::<Vec<_>>());
        run.feed(&[Step::Mark(from + 59 * SECOND)]);
        run.checkpoint();
        assert!(run.saved.len() <= 8, "{:?}", run.saved.keys());
    }
    run.feed(&[Step::Mark(START + 60 * 60 * SECOND)]);
    run.checkpoint();
    assert!(run.saved.is_empty(), "{:?}", run.saved.keys());
}

#[test]
fn the_end_makes_all_bars_final_and_keeps_the_windows() {
    let mut stage = Harness::<Aggregate>::new(r#"{"windows": ["1m"], "bars": ["10s"]}"#).unwrap();
    stage.feed(&line(0, &trade_at(START)));
    stage.advance(i64::MAX);
    stage.restart().unwrap();
    assert!(stage.out().last().unwrap().contains(r#""final":true"#));
    stage.feed(&line(1, &trade_at(START + 5 * SECOND)));
    assert_eq!(stage.count("late"), 1, "its bar was given out as final");
    stage.feed(&line(2, &trade_at(START + 10 * SECOND)));
    assert!(stage.out().last().unwrap().contains(r#""count":2"#));
}

#[test]
fn settings_may_change_between_runs() {
    let mut run = Bits::new(r#"{"windows": ["10s"], "bars": ["10s"]}"#);
    run.feed(&[0, 1, 2, 3].map(|at| trade_at(START + at * SECOND)));
    run.settings = r#"{"windows": ["2s", "10s"], "bars": ["1m"], "lateness": "5s"}"#.to_owned();
    run.restart(false);
    run.feed(&[trade_at(START + 4 * SECOND), Step::Mark(START + 14 * SECOND), Step::Mark(START + 15 * SECOND)]);
    let counts: Vec<_> =
        run.rows[0].iter().rev().take(2).map(|row| row.contains("count: 2") || row.contains("count: 5")).collect();
    assert_eq!(counts, [true, true], "{:?}", run.rows[0]);
    assert!(run.rows[1].last().unwrap().contains("interval: 10000000000, count: 4"), "{:?}", run.rows[1]);
    run.settings = r#"{"bars": ["1m"]}"#.to_owned();
    run.restart(false);
    run.feed(&[trade_at(START + 20 * SECOND)]);
    run.checkpoint();
    assert_eq!(
        run.saved.keys().map(|key| key.1).filter(|part| *part < crate::bars::FIRST_PART).collect::<Vec<_>>(),
        [0]
    );
}

#[test]
fn a_trade_that_would_spoil_the_sums_is_rejected() {
    let mut stage = Harness::<Aggregate>::new(r#"{"windows": ["1m"]}"#).unwrap();
    for fields in [r#""price":1e200"#, r#""price":1,"size":-1"#, r#""price":1,"size":1e200"#] {
        stage.feed(&format!(r#"{{"kind":"trade","symbol":"X","time":"2024-08-08T23:54:15Z",{fields}}}"#));
    }
    assert_eq!((stage.count("reject"), stage.out().len()), (3, 0));
    stage.advance(START);
    assert!(stage.checkpoint().is_empty(), "a symbol without a usable trade leaves nothing behind");
}

#[test]
fn bars_before_the_epoch_start_on_the_grid() {
    let mut stage = Harness::<Aggregate>::new(r#"{"bars": ["1m"]}"#).unwrap();
    stage.feed(r#"{"kind":"trade","symbol":"X","time":"1969-12-31T23:59:59.5Z","price":1,"size":2}"#);
    stage.advance(0);
    let out = stage.out();
    assert!(out.last().unwrap().contains(r#""time":"1969-12-31T23:59:00.000Z""#), "{out:?}");
    assert_eq!(parse_time("1969-12-31T23:59:00Z").unwrap().0, -60 * SECOND);
}
