//! An answer as JSON lines, with counts.

use std::borrow::Cow;

use tapeline_events::{Unit, format_time};

use crate::{
    Counts, Role,
    batch::{self, Breach, Bypass, Element},
    body,
    contract::{Append, Batch, Decoded, Fate, Frames, Group, Output, Reject, Rows},
    json,
    names::Names,
    row_lines::{row_count, write_append, write_rows},
};

/// The rule for events of kinds that a writer does not take.
pub const NOT_WRITTEN: &str = "not-written";

/// What a stage answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Invoked {
    /// JSON lines: first what goes on (events; for a writer rows and appends), in order; then a line of kind `reject`
    /// for each record that is late or dead.
    pub lines: Vec<u8>,
    /// What became of the records. Events of kinds that a stage does not take pass by it, and count as out.
    pub counts: Counts,
}

/// What a stage answered, before its events are text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Passed {
    /// What goes on, and the marks between it. Nothing does behind a writer.
    pub events: Batch,
    /// Rows of a writer, whose columns have one length.
    pub rows: Vec<Rows>,
    /// Appends of a writer.
    pub appends: Vec<Append>,
    /// A JSON line of kind `reject` for each record that is late or dead.
    pub rejects: Vec<u8>,
    /// What became of the records.
    pub counts: Counts,
}

impl Passed {
    /// Rows and appends as JSON lines.
    pub fn row_lines(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        self.rows.iter().for_each(|rows| write_rows(rows, &mut lines));
        self.appends.iter().for_each(|append| write_append(append, &mut lines));
        lines
    }

    /// The answer as lines.
    pub fn into_invoked(self, names: &Names) -> Invoked {
        let mut lines = self.row_lines();
        write_events(&self.events, names, &mut lines);
        lines.extend(self.rejects);
        Invoked { lines, counts: self.counts }
    }
}

/// What a stage was asked, as far as its answer does not say.
pub(super) struct Asked<'a> {
    /// Number of events, those included that pass by the stage.
    pub(super) events: usize,
    /// The newest watermark that the stage has been told.
    pub(super) watermark: i64,
    pub(super) names: &'a Names,
}

/// The answer when no event is of a kind that the stage takes.
pub(super) fn of_untouched(events: Batch, role: Role) -> Passed {
    let mut passed = Passed::default();
    let count = batch::event_count(&events) as u64;
    if role == Role::Writer {
        leave(count, &mut passed.counts);
    } else {
        pass(count, &mut passed.counts);
        passed.events = events;
    }
    passed
}

/// The answer of a stage. Names in it are resolved, and it is known to fit its input.
pub(super) fn of_stage(events: Batch, bypass: Option<Bypass>, output: Output, asked: &Asked<'_>) -> Passed {
    let mut counts = Counts::default();
    let shown = settle(&events, &output, &mut counts);
    pass((asked.events - shown) as u64, &mut counts);
    // What goes on in the place of an event is none of the new ones.
    let replaced = output.fates.iter().filter(|fate| **fate == Fate::REPLACED).count();
    counts.derived = batch::event_count(&output.emitted).saturating_sub(replaced) as u64;
    let rejects = rejects(&events, &output, asked);
    Passed { events: batch::merge(events, bypass, output), rejects, counts, ..Passed::default() }
}

/// The answer of a writer, which is known to fit its input, and what it wrote.
///
/// # Errors
/// When the columns of its rows have more than one length.
pub(super) fn of_writer(
    events: &Batch,
    output: &Output,
    (rows, appends): (Vec<Rows>, Vec<Append>),
    asked: &Asked<'_>,
) -> Result<Passed, Breach> {
    let mut passed = Passed::default();
    let shown = settle(events, output, &mut passed.counts);
    leave((asked.events - shown) as u64, &mut passed.counts);
    rows.iter().try_for_each(|rows| row_count(rows).map(drop))?;
    (passed.rows, passed.appends) = (rows, appends);
    passed.rejects = rejects(events, output, asked);
    Ok(passed)
}

/// The answer of a fetcher. Its events are known to be sound, and it accounts for every record.
pub(super) fn of_fetcher(frames: &Frames, decoded: Decoded) -> Passed {
    let mut passed = Passed::default();
    let counts = &mut passed.counts;
    counts.entered = decoded.records.iter().map(|records| u64::from(*records)).sum();
    counts.out = batch::event_count(&decoded.events) as u64;
    counts.dead = decoded.rejects.len() as u64;
    for dropped in &decoded.dropped {
        *counts.dropped.entry(dropped.rule.clone()).or_default() += dropped.count;
    }
    for reject in &decoded.rejects {
        let part = reject.part.as_deref().map(Cow::Borrowed);
        let record = part.unwrap_or_else(|| String::from_utf8_lossy(body::frame(frames, reject.frame as usize)));
        write_reject(Fate::Dead, &reject.reason, "record", &json(&record), &mut passed.rejects);
    }
    passed.events = decoded.events;
    passed
}

/// Counts events that pass by a stage.
const fn pass(count: u64, counts: &mut Counts) {
    counts.entered += count;
    counts.out += count;
}

/// Counts events that a writer was not shown.
fn leave(count: u64, counts: &mut Counts) {
    if count > 0 {
        counts.entered += count;
        *counts.dropped.entry(NOT_WRITTEN.to_owned()).or_default() += count;
    }
}

/// Counts events that the stage was shown, and says how many they are.
fn settle(events: &Batch, output: &Output, counts: &mut Counts) -> usize {
    let shown = batch::event_count(events);
    counts.entered += shown as u64;
    if output.fates.is_empty() {
        counts.out += shown as u64;
    }
    for code in &output.fates {
        match Fate::from_code(*code, output.rules.len()) {
            Some(Fate::Duplicate) => counts.duplicate += 1,
            Some(Fate::Late) => counts.late += 1,
            Some(Fate::Dead) => counts.dead += 1,
            Some(Fate::Dropped(rule)) => {
                let rule = output.rules.get(usize::from(rule)).cloned().unwrap_or_default();
                *counts.dropped.entry(rule).or_default() += 1;
            }
            Some(Fate::Out) | None => counts.out += 1,
        }
    }
    shown
}

fn write_events(events: &Batch, names: &Names, lines: &mut Vec<u8>) {
    for (group, at) in events_of(events) {
        lines.extend_from_slice(batch::to_line(group, at, names).as_bytes());
        lines.push(b'\n');
    }
}

fn events_of(events: &Batch) -> impl Iterator<Item = (&Group, usize)> {
    batch::elements(events).filter_map(|element| match element {
        Element::Event { group, at } => Some((events.groups.get(group)?, at)),
        Element::Mark(_) => None,
    })
}

/// Lines of the events that are late or dead.
fn rejects(events: &Batch, output: &Output, asked: &Asked<'_>) -> Vec<u8> {
    let mut lines = Vec::new();
    if !output.fates.iter().any(|fate| matches!(*fate, Fate::LATE | Fate::REJECT)) {
        return lines;
    }
    let mut reasons = output.rejects.iter();
    for ((group, at), fate) in events_of(events).zip(&output.fates) {
        let (fate, reason) = match *fate {
            Fate::LATE => (Fate::Late, Cow::Owned(late_reason(asked.watermark))),
            Fate::REJECT => (Fate::Dead, reasons.next().map_or(Cow::Borrowed(""), reason_of)),
            _ => continue,
        };
        write_reject(fate, &reason, "event", &batch::to_line(group, at, asked.names), &mut lines);
    }
    lines
}

fn reason_of(reject: &Reject) -> Cow<'_, str> {
    Cow::Borrowed(&reject.reason)
}

fn late_reason(watermark: i64) -> String {
    format!("its time was over for this stage: the watermark was {}", format_time(watermark, Unit::Milliseconds))
}

/// Writes the line of an event that a runtime puts aside: it is not believed, or the stage fails on it.
pub fn write_dead_event(group: &Group, at: usize, reason: &str, names: &Names, lines: &mut Vec<u8>) {
    write_reject(Fate::Dead, reason, "event", &batch::to_line(group, at, names), lines);
}

/// Writes the line of a raw record that a runtime puts aside.
pub fn write_dead_record(record: &[u8], reason: &str, lines: &mut Vec<u8>) {
    write_reject(Fate::Dead, reason, "record", &json(&String::from_utf8_lossy(record)), lines);
}

/// Writes the line of a record that is late or dead; `what` is JSON already.
fn write_reject(fate: Fate, reason: &str, key: &str, what: &str, lines: &mut Vec<u8>) {
    let fate = if fate == Fate::Late { "late" } else { "dead" };
    let reason = json(reason);
    let line = format!(r#"{{"kind":"reject","fate":"{fate}","reason":{reason},"{key}":{what}}}"#);
    lines.extend_from_slice(line.as_bytes());
    lines.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::KindSet;

    fn events(names: &mut Names) -> Batch {
        let lines = [1, 2, 3].map(|at| {
            format!(r#"{{"kind":"trade","symbol":"X","time":"1970-01-01T00:00:0{at}Z","id":{at},"price":1}}"#)
        });
        batch::from_lines(lines.iter().map(String::as_bytes), None, names).unwrap()
    }

    fn output(fates: &[u8]) -> Output {
        let rejects = fates.iter().enumerate().filter(|(_, fate)| **fate == Fate::REJECT);
        Output {
            names: Vec::new(),
            fates: fates.to_vec(),
            rules: vec!["odd".to_owned()],
            rejects: rejects.map(|(at, _)| Reject { position: at as u32, reason: "\"bad\"".to_owned() }).collect(),
            emitted: batch::empty(),
        }
    }

    fn values(lines: &[u8]) -> Vec<serde_json::Value> {
        serde_json::Deserializer::from_slice(lines).into_iter().map(Result::unwrap).collect()
    }

    #[test]
    fn every_event_is_counted_and_what_was_refused_is_told() {
        let mut names = Names::default();
        let events = events(&mut names);
        let asked = Asked { events: 3, watermark: 0, names: &names };
        let invoked = of_stage(events.clone(), None, output(&[Fate::LATE, Fate::FORWARD, Fate::REJECT]), &asked);
        let invoked = invoked.into_invoked(&names);
        assert!(invoked.counts.balances());
        assert_eq!((invoked.counts.entered, invoked.counts.out), (3, 1));
        let lines = values(&invoked.lines);
        assert_eq!(lines[0]["id"], 2);
        assert_eq!(
            (&lines[1]["kind"], &lines[1]["fate"], &lines[1]["event"]["id"]),
            (&"reject".into(), &"late".into(), &1.into())
        );
        assert_eq!((&lines[2]["reason"], &lines[2]["event"]["id"]), (&"\"bad\"".into(), &3.into()));
        let invoked = of_stage(events, None, output(&[2, 16, 16]), &asked).into_invoked(&names);
        assert!(invoked.counts.balances());
        assert_eq!((invoked.counts.duplicate, invoked.counts.dropped["odd"], invoked.lines.len()), (1, 2, 0));
    }

    #[test]
    fn what_a_stage_does_not_take_passes_by_it_and_leaves_at_a_writer() {
        let mut names = Names::default();
        let events = events(&mut names);
        let (none, bypass) = batch::select(events.clone(), KindSet::default());
        let whole = batch::rejoin(none, bypass);
        let invoked = of_untouched(whole.clone(), Role::Stage).into_invoked(&names);
        assert_eq!((invoked.counts.out, values(&invoked.lines).len()), (3, 3));
        let invoked = of_untouched(whole, Role::Writer).into_invoked(&names);
        assert_eq!((invoked.counts.dropped[NOT_WRITTEN], invoked.lines.len()), (3, 0));
        assert!(invoked.counts.balances());
    }
}
