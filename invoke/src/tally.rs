//! Counts what becomes of every event, by stage, symbol and day: what a ledger is added up from, in every runtime.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use tapeline_events::{Day, Name};

use crate::{
    batch::{self, Element},
    contract::{Batch, Decoded, Dropped, Fate, Frames, Group, Output},
    counts::{Counts, LedgerKey},
    names::Names,
};

/// What a ledger calls the host's own step behind the first stage, which refuses events whose time is beyond belief.
pub const WATERMARK_STAGE: &str = "watermark";

/// A symbol of no name, and a day of no date.
const UNKNOWN: u32 = Name::NONE;
const NO_DAY: i32 = i32::MIN;

/// Counts since they were last taken.
#[derive(Default)]
pub struct Tally {
    cells: FxHashMap<(u16, u32, i32), Cell>,
    rules: Vec<String>,
    histogram: Histogram,
}

#[derive(Default)]
struct Cell {
    entered: u64,
    out: u64,
    duplicate: u64,
    late: u64,
    dead: u64,
    derived: u64,
    dropped: Vec<(u32, u64)>,
}

impl Tally {
    /// All events of these groups enter the stage and are left out by a rule.
    pub fn drop_all<'g>(&mut self, stage: usize, groups: impl IntoIterator<Item = &'g Group>, rule: &str) {
        let rule = self.rule(rule);
        self.each(stage, groups, |cell, count| {
            cell.entered += count;
            cell.drop(rule, count);
        });
    }

    /// All events of the batch enter the stage and go on behind it.
    pub fn pass(&mut self, stage: usize, batch: &Batch) {
        self.each(stage, &batch.groups, |cell, count| {
            cell.entered += count;
            cell.out += count;
        });
    }

    /// One record enters and is in the dead letters; neither symbol nor time need be known.
    pub fn refuse(&mut self, stage: usize, symbol: Option<u32>, time: Option<i64>) {
        let day = time.map_or(NO_DAY, |time| Day::of(time).0);
        let cell = self.cell(stage, symbol.unwrap_or(UNKNOWN), day);
        cell.entered += 1;
        cell.dead += 1;
    }

    /// One event that was to go on is put aside: in the place of one that went out, if the stage had counted it.
    pub fn bury(&mut self, stage: usize, symbol: u32, time: i64) {
        let cell = self.cell(stage, symbol, Day::of(time).0);
        match cell.out.checked_sub(1) {
            Some(out) => cell.out = out,
            None => cell.entered += 1,
        }
        cell.dead += 1;
    }

    /// The records of these frames enter a fetcher, which has answered; names in the answer are resolved.
    pub fn decode(&mut self, stage: usize, frames: &Frames, decoded: &Decoded) {
        self.pass(stage, &decoded.events);
        decoded.dropped.iter().for_each(|dropped| self.drop_records(stage, dropped));
        for reject in &decoded.rejects {
            let received = frames.received.get(reject.frame as usize).filter(|received| **received != i64::MIN);
            self.refuse(stage, reject.symbol, received.copied());
        }
    }

    /// Records enter the first stage and are left out.
    fn drop_records(&mut self, stage: usize, dropped: &Dropped) {
        let rule = self.rule(&dropped.rule);
        let cell = self.cell(stage, dropped.symbol.unwrap_or(UNKNOWN), dropped.day.unwrap_or(NO_DAY));
        cell.entered += dropped.count;
        cell.drop(rule, dropped.count);
    }

    /// The events of the batch enter the stage, which has answered; the answer is known to fit. What enters is counted from
    /// the batch and what becomes of it from the fates, so that the balance can fail.
    pub fn settle(&mut self, stage: usize, batch: &Batch, Output { fates, rules, emitted, .. }: &Output) {
        // What goes on in the place of an event is not new.
        if !fates.contains(&Fate::REPLACED) {
            self.each(stage, &emitted.groups, |cell, count| cell.derived += count);
        }
        if fates.iter().all(|fate| *fate <= Fate::REPLACED) {
            return self.pass(stage, batch);
        }
        self.each(stage, &batch.groups, |cell, count| cell.entered += count);
        let rules: Vec<u32> = rules.iter().map(|rule| self.rule(rule)).collect();
        let events = batch::elements(batch).filter_map(|element| match element {
            Element::Event { group, at } => Some((&batch.groups[group], at)),
            Element::Mark(_) => None,
        });
        for ((group, at), code) in events.zip(fates) {
            let cell = self.cell(stage, group.symbol[at], Day::of(group.time[at]).0);
            match Fate::from_code(*code, rules.len()) {
                Some(Fate::Duplicate) => cell.duplicate += 1,
                Some(Fate::Late) => cell.late += 1,
                Some(Fate::Dead) => cell.dead += 1,
                Some(Fate::Dropped(rule)) => cell.drop(rules[usize::from(rule)], 1),
                Some(Fate::Out) | None => cell.out += 1,
            }
        }
    }

    /// The counts in the ledger's terms; the tally is empty then.
    pub fn take(&mut self, stages: &[(usize, &str)], names: &Names) -> BTreeMap<LedgerKey, Counts> {
        let mut ledger: BTreeMap<LedgerKey, Counts> = BTreeMap::new();
        for ((stage, symbol, day), cell) in std::mem::take(&mut self.cells) {
            let Some((position, name)) = stages.get(usize::from(stage)) else { continue };
            let key = LedgerKey {
                stage_index: *position as u32,
                stage: (*name).to_owned(),
                symbol: names.text(Name(symbol)).to_owned(),
                day: (day != NO_DAY).then_some(Day(day)),
            };
            ledger.entry(key).or_default().add(&cell.counts(&self.rules));
        }
        self.rules.clear();
        ledger
    }

    /// Forgets all counts.
    pub fn clear(&mut self) {
        self.cells.clear();
        self.rules.clear();
    }

    fn cell(&mut self, stage: usize, symbol: u32, day: i32) -> &mut Cell {
        self.cells.entry((stage as u16, symbol, day)).or_default()
    }

    fn rule(&mut self, rule: &str) -> u32 {
        let at = self.rules.iter().position(|known| known == rule).unwrap_or_else(|| {
            self.rules.push(rule.to_owned());
            self.rules.len() - 1
        });
        at as u32
    }

    /// Calls `count` for each symbol and day, with the number of events.
    fn each<'g>(&mut self, stage: usize, groups: impl IntoIterator<Item = &'g Group>, count: impl Fn(&mut Cell, u64)) {
        let mut histogram = std::mem::take(&mut self.histogram);
        for group in groups {
            histogram.of(group, |symbol, day, events| count(self.cell(stage, symbol, day), events));
        }
        self.histogram = histogram;
    }
}

/// Counts the events of a group by symbol: every event passes here once a stage, so that looking each up would show.
#[derive(Default)]
struct Histogram {
    /// By number of the symbol.
    counts: Vec<u32>,
    seen: Vec<u32>,
}

/// Symbols above this number are looked up one by one, so that the counts stay in the processor's cache.
const HISTOGRAM_SYMBOLS_MAX: u32 = 4_096;

impl Histogram {
    fn of(&mut self, group: &Group, mut count: impl FnMut(u32, i32, u64)) {
        let days = group.time.iter().fold((i64::MAX, i64::MIN), |(min, max), time| (min.min(*time), max.max(*time)));
        let (first, last) = (Day::of(days.0), Day::of(days.1));
        let widest = group.symbol.iter().fold(0, |widest, symbol| widest.max(*symbol));
        if first != last || widest >= HISTOGRAM_SYMBOLS_MAX {
            return group.symbol.iter().zip(&group.time).for_each(|(symbol, time)| count(*symbol, Day::of(*time).0, 1));
        }
        if self.counts.len() <= widest as usize {
            self.counts.resize(widest as usize + 1, 0);
        }
        for symbol in &group.symbol {
            let counted = &mut self.counts[*symbol as usize];
            if *counted == 0 {
                self.seen.push(*symbol);
            }
            *counted += 1;
        }
        for symbol in self.seen.drain(..) {
            count(symbol, first.0, u64::from(std::mem::take(&mut self.counts[symbol as usize])));
        }
    }
}

impl Cell {
    fn drop(&mut self, rule: u32, count: u64) {
        match self.dropped.iter_mut().find(|(known, _)| *known == rule) {
            Some((_, counted)) => *counted += count,
            None => self.dropped.push((rule, count)),
        }
    }

    fn counts(&self, rules: &[String]) -> Counts {
        let dropped: BTreeMap<String, u64> =
            self.dropped.iter().map(|(rule, count)| (rules[*rule as usize].clone(), *count)).collect();
        Counts {
            entered: self.entered,
            out: self.out,
            duplicate: self.duplicate,
            late: self.late,
            dead: self.dead,
            dropped,
            derived: self.derived,
        }
    }
}
