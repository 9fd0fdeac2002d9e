//! The stage through the harness: fates, saved parts, and that neither cuts nor restarts show.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tapeline_sdk::{Unit, format_time, testing::Harness};

use super::*;

const SECOND: i64 = 1_000_000_000;
const START: i64 = 1_723_161_255 * SECOND;

fn harness(settings: &str) -> Harness<Dedup> {
    Harness::new(settings).unwrap()
}

fn line(kind: &str, id: &str, ns: i64, fields: &str) -> String {
    let time = format_time(ns, Unit::Nanoseconds);
    let id = if id.is_empty() { String::new() } else { format!(r#""id":{id},"#) };
    format!(r#"{{"kind":"{kind}","symbol":"X","source":"s",{id}"time":"{time}",{fields}}}"#) + "\n"
}

fn trade(id: impl ToString, ns: i64) -> String {
    line("trade", &id.to_string(), ns, r#""price":1,"size":2"#)
}

fn counts(harness: &Harness<Dedup>) -> [u64; 4] {
    ["forward", "duplicate", "late", "reject"].map(|fate| harness.count(fate))
}

#[test]
fn what_comes_again_goes_on_once() {
    let ids = ["5", "3", "0", "18446744073709551615", "4", "64", "\"a\"", "\"5\"", "\"b,c\""];
    let pass: String = ids.iter().map(|id| trade(id, START)).collect();
    let mut harness = harness("{}");
    for _ in 0..3 {
        harness.feed(&pass);
        harness.restart().unwrap();
    }
    assert_eq!(counts(&harness), [9, 18, 0, 0]);
    assert_eq!(harness.out(), pass.lines().map(canonical).collect::<Vec<_>>());
}

/// A line as the harness prints it.
fn canonical(line: &str) -> String {
    let mut harness = harness(r#"{"policy":"time"}"#);
    harness.feed(line);
    harness.out().remove(0)
}

#[test]
fn symbols_sources_and_kinds_do_not_mix() {
    let time = format_time(START, Unit::Milliseconds);
    let mut harness = harness("{}");
    for _ in 0..2 {
        for id in ["7", "\"7\""] {
            for (symbol, source) in [("X", "a"), ("X", "b"), ("Y", "a"), ("Xa", "")] {
                for rest in [r#""kind":"trade","price":1"#, r#""kind":"quote","bid":1"#] {
                    harness.feed(&format!(
                        r#"{{"symbol":"{symbol}","source":"{source}","id":{id},"time":"{time}",{rest}}}"#
                    ));
                }
            }
        }
        harness.restart().unwrap();
    }
    assert_eq!(counts(&harness), [16, 16, 0, 0]);
}

#[test]
fn an_event_without_id_says_which_policy_fits() {
    let mut harness = harness("{}");
    harness.feed(&trade("", START));
    assert_eq!(counts(&harness), [0, 0, 0, 1]);
    assert_eq!(harness.rejected(), [NO_ID]);
    assert!(harness.checkpoint().is_empty());
}

#[test]
fn policy_time_keeps_one_event_of_a_time() {
    let mut harness = harness(r#"{"policy":"time"}"#);
    for (ns, price) in [(START, 1), (START, 2), (START + 1, 1), (-1, 1), (-1, 3)] {
        harness.feed(&line("trade", "", ns, &format!(r#""price":{price}"#)));
        harness.restart().unwrap();
    }
    assert_eq!(counts(&harness), [3, 2, 0, 0]);
}

#[test]
fn policy_value_compares_all_fields() {
    let fields = [
        r#""price":1"#,
        r#""price":1,"size":0"#,
        r#""price":1,"size":1"#,
        r#""price":1,"size":1,"currency":"USD""#,
        r#""price":1,"size":1,"conditions":"USD""#,
        r#""price":1,"size":1,"conditions":"1,8""#,
    ];
    let mut all: Vec<String> = fields.iter().map(|fields| line("trade", "", START, fields)).collect();
    all.push(line("trade", "", START + 1, fields[0]));
    all.push(line("trade", "1", START, fields[0]));
    all.push(line("trade", "\"1\"", START, fields[0]));
    all.push(line("quote", "", START, r#""bid":1,"ask":2"#));
    all.push(line("quote", "", START, r#""bid":2,"ask":1"#));
    let mut harness = harness(r#"{"policy":"value"}"#);
    harness.feed(&all.concat());
    assert_eq!(counts(&harness), [11, 0, 0, 0]);
    harness.feed(&all.concat());
    harness.feed(&line("trade", "", START, r#""price":1,"lag":5,"received":"2024-08-09T00:00:00Z""#));
    harness.feed(&line("trade", "", START, r#""price":1,"size":-0.0"#));
    assert_eq!(counts(&harness), [11, 13, 0, 0], "twins in a frame are one; received and lag do not count");
}

#[test]
fn what_can_no_longer_be_told_is_late() {
    let mut harness = harness(r#"{"keep":"10s"}"#);
    harness.feed(&trade(1, START));
    harness.advance(START + 10 * SECOND);
    harness.feed(&(trade(1, START) + &trade(2, START) + &trade(3, START - 1)));
    harness.advance(START + 10 * SECOND + 1);
    harness.feed(&(trade(1, START) + &trade(4, START)));
    assert_eq!(counts(&harness), [2, 1, 3, 0]);
}

#[test]
fn after_the_end_all_is_still_known() {
    let mut harness = harness("{}");
    harness.feed(&trade(1, START));
    harness.advance(i64::MAX);
    harness.restart().unwrap();
    harness.feed(&trade(1, START));
    assert_eq!(counts(&harness), [1, 1, 0, 0]);
}

#[test]
fn a_symbol_that_is_quiet_for_long_is_forgotten() {
    let mut harness = harness(r#"{"keep":"8s"}"#);
    harness.feed(&trade(1, START));
    harness.checkpoint();
    assert_eq!(harness.saved().len(), 1);
    harness.advance(START + 9 * SECOND);
    harness.checkpoint();
    assert!(harness.saved().is_empty());
}

#[test]
fn a_part_that_expired_and_came_again_is_saved_once() {
    let mut harness = harness(r#"{"keep":"8s"}"#);
    harness.feed(&trade(1, START));
    harness.checkpoint();
    harness.advance(START + 9 * SECOND);
    harness.feed(&trade(2, START + 9 * SECOND));
    assert_eq!(harness.checkpoint().len(), 1);
    harness.restart().unwrap();
    harness.feed(&trade(2, START + 9 * SECOND));
    assert_eq!(counts(&harness), [2, 1, 0, 0]);
}

#[test]
fn expired_parts_are_deleted_and_their_numbers_not_used_again() {
    let mut harness = harness(r#"{"keep":"8s"}"#);
    for second in 0..40 {
        let ns = START + second * SECOND;
        harness.advance(ns);
        harness.feed(&trade(second, ns));
        harness.checkpoint();
        assert!(harness.saved().len() <= 10);
    }
    assert_eq!(harness.saved().last().unwrap().1, 39);
}

#[test]
fn a_commit_is_small() {
    let mut harness = harness("{}");
    harness.feed(&trade(3_735_683_259_u64, START));
    harness.checkpoint();
    let pass: String = (1..=10_000_u64).map(|at| trade(3_735_683_259 + at, START)).collect();
    harness.feed(&pass);
    let saved = harness.checkpoint();
    let bytes: usize = saved.iter().map(|(_, _, bytes)| bytes).sum();
    assert_eq!((saved.len(), bytes < 11_000), (10, true), "{bytes}");
    harness.feed(&pass);
    assert!(harness.checkpoint().is_empty(), "what is known changes nothing");
    harness.feed(&trade(1, START));
    assert_eq!(harness.checkpoint().len(), 1, "only the part that is being filled is written again");
}

/// One step of a test: an event, or a mark.
#[derive(Clone, Debug)]
enum Step {
    Event { source: u8, id: u16, text: bool, ns: i64 },
    Mark(i64),
}

/// What a host does between two steps.
#[derive(Clone, Copy, Debug)]
enum Between {
    Nothing,
    Cut,
    Checkpoint,
    Restart,
    RestartExpired,
}

fn between() -> impl Strategy<Value = Between> {
    use Between::*;
    prop_oneof![4 => Just(Nothing), 2 => Just(Cut), 1 => Just(Checkpoint), 1 => Just(Restart), 1 => Just(RestartExpired)]
}

/// Events around a clock that goes on, and marks behind it. With `spread` 0 an id has one time only.
fn steps(spread: i64) -> impl Strategy<Value = Vec<(Step, Between)>> {
    let step = (0_u8..10, any::<u8>(), any::<bool>(), 0_u8..2, 0..=spread, between());
    proptest::collection::vec(step, 1..200).prop_map(|steps| {
        let step = |(at, (what, near, text, source, shift, between)): (usize, _)| {
            let clock = at as i64 * 3 / 2;
            let step = if what == 0 {
                Step::Mark(START + (clock - i64::from(near) / 4) * SECOND / 4)
            } else {
                let id = (clock as u64).saturating_sub(u64::from(near) / 2) as u16;
                Step::Event { source, id, text, ns: START + (i64::from(id) + shift) * SECOND / 4 }
            };
            (step, between)
        };
        steps.into_iter().enumerate().map(step).collect()
    })
}

fn text_of(step: &Step) -> String {
    match step {
        Step::Mark(ns) => format!(r#"{{"kind":"watermark","time":"{}"}}"#, format_time(*ns, Unit::Nanoseconds)) + "\n",
        Step::Event { source, id, text, ns } => {
            let id = if *text { format!("\"{id}\"") } else { id.to_string() };
            let time = format_time(*ns, Unit::Nanoseconds);
            format!(r#"{{"kind":"trade","symbol":"X","source":"s{source}","id":{id},"time":"{time}","price":1}}"#)
                + "\n"
        }
    }
}

fn run(steps: &[(Step, Between)], settings: &str) -> (Vec<String>, [u64; 4]) {
    let mut harness = harness(settings);
    let mut pending = String::new();
    for (step, between) in steps {
        pending += &text_of(step);
        if !matches!(between, Between::Nothing) {
            harness.feed(&std::mem::take(&mut pending));
        }
        match between {
            Between::Nothing | Between::Cut => {}
            Between::Checkpoint => drop(harness.checkpoint()),
            Between::Restart => harness.restart().unwrap(),
            Between::RestartExpired => {
                harness.checkpoint();
                harness.expire();
                harness.restart().unwrap();
            }
        }
    }
    harness.feed(&pending);
    (harness.out(), counts(&harness))
}

/// Remembers everything for ever.
fn model(steps: &[(Step, Between)], keep: i64) -> [u64; 4] {
    let (mut seen, mut watermark, mut counts) = (BTreeSet::new(), i64::MIN, [0; 4]);
    for (step, _) in steps {
        match step {
            Step::Mark(ns) => watermark = watermark.max(*ns),
            Step::Event { ns, .. } if *ns < watermark.saturating_sub(keep) => counts[2] += 1,
            Step::Event { source, id, text, .. } if seen.insert((*source, *id, *text)) => counts[0] += 1,
            Step::Event { .. } => counts[1] += 1,
        }
    }
    counts
}

proptest! {
    #[test]
    fn forgetting_never_shows(steps in steps(0)) {
        prop_assert_eq!(run(&steps, r#"{"keep":"10s"}"#).1, model(&steps, 10 * SECOND));
    }

    #[test]
    fn neither_cuts_nor_restarts_nor_expiry_show(steps in steps(60), policy in 0_usize..3) {
        let settings = format!(r#"{{"keep":"10s","policy":"{}"}}"#, ["id", "time", "value"][policy]);
        let mut straight = steps.clone();
        straight.iter_mut().for_each(|(_, between)| *between = Between::Nothing);
        prop_assert_eq!(run(&steps, &settings), run(&straight, &settings));
    }
}
