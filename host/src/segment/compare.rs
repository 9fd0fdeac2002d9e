//! Compares what a candidate answers with what the live version does, record by record.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tapeline_events::{Unit, format_time};
use tapeline_invoke::{json, row_count, write_append, write_rows};

use super::running::{Answer, Shown};
use crate::{
    batch::{self, Element},
    contract::{Batch, Decoded, Fate, INPUT, MARK},
    names::Names,
};

/// Differences that are kept in full: the first ones.
const FIRST_MAX: usize = 20;
/// Symbols whose differences are counted by themselves.
const SYMBOLS_MAX: usize = 1_000;
/// Lines that are shown of what came of a record: a mark may close thousands of windows.
const LINES_MAX: usize = 10;
/// Bytes of a text that is shown.
const SHOWN_BYTES_MAX: usize = 1 << 10;

/// What a candidate was compared on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Records that both were given.
    pub records: u64,
    /// Records that became something else.
    pub differences: u64,
    /// Differences of each symbol, of the first thousand that had any.
    pub by_symbol: BTreeMap<String, u64>,
    /// The first differences.
    pub first: Vec<Difference>,
}

/// A record of which the two versions made something else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The symbol, where it is known.
    pub symbol: String,
    /// The record; empty where what came of it cannot be traced to one.
    pub record: String,
    /// What the live version made of it.
    pub live: Vec<String>,
    /// What the candidate made of it.
    pub candidate: Vec<String>,
}

impl Comparison {
    /// Adds what was compared elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.differences += other.differences;
        for (symbol, count) in &other.by_symbol {
            self.count(symbol, *count);
        }
        let room = FIRST_MAX.saturating_sub(self.first.len());
        self.first.extend(other.first.iter().take(room).cloned());
    }

    fn count(&mut self, symbol: &str, differences: u64) {
        if self.by_symbol.len() < SYMBOLS_MAX || self.by_symbol.contains_key(symbol) {
            *self.by_symbol.entry(symbol.to_owned()).or_default() += differences;
        }
    }

    fn note(&mut self, difference: Difference) {
        self.differences += 1;
        self.count(&difference.symbol, 1);
        if self.first.len() < FIRST_MAX {
            self.first.push(difference);
        }
    }

    /// Compares two answers to one batch.
    pub(super) fn compare(
        &mut self,
        live: (&Shown, &Answer),
        candidate: (&Shown, &Answer),
        names: &Names,
        is_writer: bool,
    ) {
        self.records += batch::event_count(&live.0.events) as u64;
        let is_shown_alike = live.0.bypass.is_none() && candidate.0.bypass.is_none()
            || batch::event_count(&live.0.events) == batch::event_count(&candidate.0.events);
        if is_shown_alike && encoded(live.1) == encoded(candidate.1) {
            return;
        }
        let (live_became, candidate_became) = (became(live, names), became(candidate, names));
        if is_shown_alike {
            for (mine, theirs) in live_became.into_iter().zip(candidate_became) {
                if mine.what != theirs.what {
                    let (symbol, record) = (mine.symbol, shorten(mine.record));
                    self.note(Difference { symbol, record, live: shown(mine.what), candidate: shown(theirs.what) });
                }
            }
        } else {
            let flat = |became: Vec<Became>| became.into_iter().flat_map(|became| became.what).collect();
            self.compare_lines(flat(live_became), flat(candidate_became));
        }
        if is_writer {
            self.compare_lines(written(live.1), written(candidate.1));
        }
    }

    /// Compares two answers to the same frames.
    pub(super) fn compare_decoded(&mut self, live: &Decoded, candidate: &Decoded, names: &Names) {
        self.records += live.records.iter().map(|records| u64::from(*records)).sum::<u64>();
        self.compare_lines(decoded_lines(live, names), decoded_lines(candidate, names));
    }

    /// Compares lines that cannot be traced to records: what one has and the other has not.
    fn compare_lines(&mut self, live: Vec<String>, candidate: Vec<String>) {
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        live.into_iter().for_each(|line| *counts.entry(line).or_default() += 1);
        candidate.into_iter().for_each(|line| *counts.entry(line).or_default() -= 1);
        for (line, count) in counts.into_iter().filter(|(_, count)| *count != 0) {
            for _ in 0..count.unsigned_abs() {
                let lines = vec![shorten(line.clone())];
                let (live, candidate) = if count > 0 { (lines, Vec::new()) } else { (Vec::new(), lines) };
                self.note(Difference { live, candidate, ..Difference::default() });
            }
        }
    }
}

/// All of an answer, as bytes: numbers that are no numbers are equal there.
fn encoded(answer: &Answer) -> Option<Vec<u8>> {
    let output = &answer.output;
    let all = (&output.fates, &output.rules, &output.rejects, &output.emitted, &answer.rows, &answer.appends);
    postcard::to_allocvec(&all).ok()
}

/// An element of a batch, and what became of it.
struct Became {
    symbol: String,
    record: String,
    what: Vec<String>,
}

fn became((shown, Answer { output, .. }): (&Shown, &Answer), names: &Names) -> Vec<Became> {
    let mut event = 0;
    let mut all: Vec<Became> = Vec::new();
    let mut reasons = output.rejects.iter();
    for element in batch::elements(&shown.events) {
        all.push(match element {
            Element::Mark(at) => {
                let time = shown.events.marks.get(at).copied().unwrap_or(i64::MAX);
                let record = match time {
                    i64::MAX => "the end".to_owned(),
                    time => format!("watermark {}", format_time(time, Unit::Milliseconds)),
                };
                Became { symbol: String::new(), record, what: Vec::new() }
            }
            Element::Event { group, at } => {
                let group = &shown.events.groups[group];
                let code = output.fates.get(event).copied().unwrap_or(Fate::FORWARD);
                event += 1;
                let fate = match Fate::from_code(code, output.rules.len()) {
                    Some(Fate::Duplicate) => "a duplicate".to_owned(),
                    Some(Fate::Late) => "late".to_owned(),
                    Some(Fate::Dead) => {
                        format!("refused: {}", reasons.next().map_or("", |reject| reject.reason.as_str()))
                    }
                    Some(Fate::Dropped(rule)) => {
                        let rule = output.rules.get(usize::from(rule)).map_or("", String::as_str);
                        format!("dropped by {rule}")
                    }
                    Some(Fate::Out) | None if code == Fate::REPLACED => "replaced".to_owned(),
                    Some(Fate::Out) | None => "goes on".to_owned(),
                };
                let symbol = names.text(tapeline_events::Name(group.symbol[at])).to_owned();
                Became { symbol, record: batch::to_line(group, at, names), what: vec![fate] }
            }
        });
    }
    let mut next = [0_usize; 256];
    let mut element = None;
    for code in &output.emitted.order {
        if matches!(*code, INPUT | MARK) {
            element = Some(element.map_or(0, |element: usize| element + 1));
            continue;
        }
        let at = next[usize::from(*code)];
        next[usize::from(*code)] += 1;
        if let (Some(group), Some(became)) =
            (output.emitted.groups.get(usize::from(*code)), all.get_mut(element.unwrap_or(0)))
        {
            became.what.push(batch::to_line(group, at, names));
        }
    }
    all
}

fn written(answer: &Answer) -> Vec<String> {
    let mut lines = Vec::new();
    for rows in &answer.rows {
        if row_count(rows).is_ok() {
            write_rows(rows, &mut lines);
        } else {
            lines.extend_from_slice(format!("rows of {} that fit no table\n", rows.table).as_bytes());
        }
    }
    answer.appends.iter().for_each(|append| write_append(append, &mut lines));
    String::from_utf8_lossy(&lines).lines().map(str::to_owned).collect()
}

fn decoded_lines(decoded: &Decoded, names: &Names) -> Vec<String> {
    let mut lines = event_lines(&decoded.events, names);
    let text = |symbol: Option<u32>| symbol.map_or("", |symbol| names.text(tapeline_events::Name(symbol))).to_owned();
    for dropped in &decoded.dropped {
        let (rule, symbol, day) = (json(&dropped.rule), json(&text(dropped.symbol)), json(&dropped.day));
        let line = format!(r#"{{"kind":"dropped","rule":{rule},"symbol":{symbol},"day":{day}}}"#);
        lines.extend(std::iter::repeat_n(line, usize::try_from(dropped.count).unwrap_or(usize::MAX)));
    }
    for reject in &decoded.rejects {
        let (frame, reason, part) = (reject.frame, json(&reject.reason), json(&reject.part));
        lines.push(format!(r#"{{"kind":"reject","frame":{frame},"reason":{reason},"part":{part}}}"#));
    }
    lines
}

fn event_lines(events: &Batch, names: &Names) -> Vec<String> {
    let lines = batch::elements(events).filter_map(|element| match element {
        Element::Event { group, at } => Some(batch::to_line(&events.groups[group], at, names)),
        Element::Mark(_) => None,
    });
    lines.collect()
}

fn shown(lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(LINES_MAX);
    let mut shown: Vec<String> = lines.into_iter().take(LINES_MAX).map(shorten).collect();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown
}

fn shorten(mut text: String) -> String {
    if text.len() > SHOWN_BYTES_MAX {
        text.truncate(text.floor_char_boundary(SHOWN_BYTES_MAX));
        text.push_str("...");
    }
    text
}
