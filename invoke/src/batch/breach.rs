//! What a batch must keep to, and what stages must with their answers.

use tapeline_events::Day;

use super::event_count;
use crate::contract::{Batch, Decoded, Fate, Frames, GROUPS_MAX, Group, INPUT, MARK, Output};

/// An answer that does not fit its question.
#[derive(Debug, thiserror::Error)]
#[error("the stage broke the contract: {0}")]
pub struct Breach(pub String);

/// Whether columns, order and marks fit each other.
///
/// # Errors
/// Says what does not.
pub fn check(batch: &Batch) -> Result<(), Breach> {
    if batch.groups.len() > GROUPS_MAX {
        return Err(Breach(format!("{} groups; a batch has at most {GROUPS_MAX}", batch.groups.len())));
    }
    if let Some(group) = batch.groups.iter().position(|group| !group.is_sound()) {
        return Err(Breach(format!("the columns of group {group} differ in length")));
    }
    if batch.order.is_empty() && batch.groups.len() <= 1 && batch.marks.is_empty() {
        return Ok(());
    }
    let mut counts = [0_usize; 256];
    batch.order.iter().for_each(|code| counts[usize::from(*code)] += 1);
    let in_groups = batch.groups.iter().enumerate().all(|(at, group)| counts[at] == group.len());
    let known = counts[..GROUPS_MAX].iter().skip(batch.groups.len()).all(|count| *count == 0);
    if in_groups && known && counts[usize::from(MARK)] == batch.marks.len() && counts[253] == 0 && counts[255] == 0 {
        Ok(())
    } else {
        Err(Breach("the order does not name each event and mark once".to_owned()))
    }
}

/// Whether a fetcher accounts for every record of every frame, on days that there are, and gives out a sound batch.
///
/// # Errors
/// Says what is wrong.
pub fn check_decoded(frames: &Frames, decoded: &Decoded) -> Result<(), Breach> {
    check(&decoded.events)?;
    if decoded.records.len() != frames.ends.len() || decoded.records.contains(&0) {
        return Err(Breach(format!("{} of {} frames are accounted for", decoded.records.len(), frames.ends.len())));
    }
    let records: u64 = decoded.records.iter().map(|records| u64::from(*records)).sum();
    let dropped: u64 = decoded.dropped.iter().map(|dropped| dropped.count).sum();
    let found = event_count(&decoded.events) as u64 + dropped + decoded.rejects.len() as u64;
    if records != found {
        return Err(Breach(format!("{records} records came in, {found} went out")));
    }
    if let Some(day) = decoded.dropped.iter().filter_map(|dropped| dropped.day).find(|day| !Day(*day).has_times()) {
        return Err(Breach(format!("records are dropped on day {day}, in which no time lies")));
    }
    match decoded.rejects.iter().find(|reject| reject.frame as usize >= frames.ends.len()) {
        Some(reject) => Err(Breach(format!("frame {} is rejected, of {}", reject.frame, frames.ends.len()))),
        None => Ok(()),
    }
}

/// Whether an answer fits its input.
///
/// # Errors
/// Says what does not.
pub fn check_answer(input: &Batch, output: &Output) -> Result<(), Breach> {
    let events = event_count(input);
    if !output.fates.is_empty() && output.fates.len() != events {
        return Err(Breach(format!("{} fates for {events} events", output.fates.len())));
    }
    if let Some(code) = output.fates.iter().find(|code| Fate::from_code(**code, output.rules.len()).is_none()) {
        return Err(Breach(format!("{code} is no fate")));
    }
    let rejected = output.fates.iter().filter(|code| **code == Fate::REJECT).count();
    if rejected != output.rejects.len() {
        return Err(Breach(format!("{rejected} events are rejected, {} have a reason", output.rejects.len())));
    }
    if let Some(reject) = output.rejects.iter().find(|r| output.fates.get(r.position as usize) != Some(&Fate::REJECT)) {
        return Err(Breach(format!("a reason for event {}, which is not rejected", reject.position)));
    }
    check_emitted(&output.emitted, events, input.marks.len())
}

fn check_emitted(emitted: &Batch, events: usize, marks: usize) -> Result<(), Breach> {
    if emitted.groups.is_empty() && emitted.order.is_empty() {
        return Ok(());
    }
    if emitted.groups.len() > GROUPS_MAX || !emitted.marks.is_empty() {
        return Err(Breach("emitted events have too many groups, or marks".to_owned()));
    }
    if let Some(group) = emitted.groups.iter().position(|group| !group.is_sound()) {
        return Err(Breach(format!("the columns of emitted group {group} differ in length")));
    }
    let mut counts = [0_usize; 256];
    emitted.order.iter().for_each(|code| counts[usize::from(*code)] += 1);
    let in_groups = emitted.groups.iter().enumerate().all(|(at, group)| counts[at] == group.len());
    let total: usize = emitted.groups.iter().map(Group::len).sum();
    let fits = counts[usize::from(INPUT)] == events && counts[usize::from(MARK)] == marks;
    if in_groups && fits && total + events + marks == emitted.order.len() {
        Ok(())
    } else {
        Err(Breach("the order of what was emitted does not name each event and mark once".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{batch::empty, body, contract::Dropped};

    #[test]
    fn records_are_dropped_on_days_that_there_are() {
        let frames = body::frames(&[b"a", b"b"], "events", None);
        let decoded = |day| {
            let dropped = Dropped { rule: "ping".to_owned(), symbol: None, day, count: 2 };
            Decoded {
                names: Vec::new(),
                records: vec![1; 2],
                events: empty(),
                dropped: vec![dropped],
                rejects: Vec::new(),
            }
        };
        for day in [None, Some(0), Some(19_943), Some(-106_752), Some(106_751)] {
            check_decoded(&frames, &decoded(day)).unwrap();
        }
        for day in [i32::MIN, -106_753, 106_752, i32::MAX] {
            let breach = check_decoded(&frames, &decoded(Some(day))).unwrap_err().to_string();
            assert!(breach.ends_with(&format!("records are dropped on day {day}, in which no time lies")), "{breach}");
        }
    }
}
