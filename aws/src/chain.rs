//! The stages of this function, one after the other: work in, outcome out. Knows no service but the store of the state.

use std::collections::BTreeMap;

use tapeline_events::{Kind, Name};
use tapeline_invoke::{
    Asking, Counts, Hop, Passed, Role, Watermark,
    answer::{write_dead_event, write_dead_record},
    batch::{self, Element},
    contract::{Append, Batch, Rows},
    names::Names,
    partition_of,
};
use tapeline_runtime::{Component, Fault};
use tapeline_state::{Bucket, Changes, Root, Scope, StateError};

use crate::{
    message::{self, cut},
    position::Position,
    settings::Entrance,
    stage::{Stage, Stored, newest},
    work::Work,
};

/// What came of work. Nothing of it has happened yet.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What goes on, to which partition, in order.
    pub out: Vec<(u32, Hop)>,
    /// Rows of the writer.
    pub rows: Vec<Rows>,
    /// Its appends.
    pub appends: Vec<Append>,
    /// JSON lines of the alarms among what the writer was given.
    pub alarms: Vec<String>,
    /// JSON lines of records that are late or dead, by the stage that put them aside.
    pub aside: Vec<(String, Vec<u8>)>,
    /// What was counted, by stage.
    pub counts: Vec<(String, Counts)>,
    /// What changed of the state.
    pub changes: Vec<Changes>,
    /// Newest event time and watermark, where they are made.
    pub times: Option<(i64, i64)>,
}

/// Why nothing came of it.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// The state could not be read.
    State(StateError),
    /// A stage failed.
    Stage {
        /// Its place in the chain.
        at: usize,
        /// Why.
        fault: Fault,
    },
}

/// Where work is done.
pub(crate) struct Place<'a, B> {
    /// The state.
    pub scope: &'a Scope<'a, B, Position>,
    /// As it was committed last.
    pub before: &'a Root<Position>,
    /// The partition.
    pub partition: u32,
    /// Partitions of the pipeline.
    pub partitions: u32,
    /// Of the first function.
    pub entrance: Option<&'a Entrance>,
}

/// Gives work to the stages.
///
/// # Errors
/// See [`Stopped`].
pub(crate) async fn run<B: Bucket>(
    stages: &mut [Stage],
    components: &[Component],
    place: &Place<'_, B>,
    work: Work,
) -> Result<Outcome, Stopped> {
    let mut outcome = Outcome::default();
    let mut work = work;
    let mut watermark = place.entrance.map(|entrance| {
        let mut watermark = Watermark::new(entrance.watermark);
        watermark.set(place.before.meta.newest, place.before.meta.watermark);
        watermark
    });
    let last = stages.len().saturating_sub(1);
    for (at, (stage, component)) in stages.iter_mut().zip(components).enumerate() {
        let failed = |fault| Stopped::Stage { at, fault };
        let mut caller = stage.take(component).await.map_err(failed)?;
        let name = stage.settings.name.clone();
        let area = place.before.areas.get(&name).cloned().unwrap_or_default();
        let mut stored = Stored::new(place.scope, place.before.id(), &area);
        let passed = if component.role() == Role::Fetcher {
            decode(&mut caller, work).await
        } else {
            let events = unpack(work, caller.names()).map_err(Fault::from).map_err(failed)?;
            if component.role() == Role::Writer {
                outcome.alarms = alarms(&events, caller.names());
            }
            let told = newest(&events.marks);
            match caller.pass(events, Some(&mut stored)).await {
                Ok(passed) => stored.changes(&name, &mut caller, told).await.map(|changes| {
                    outcome.changes.push(changes);
                    passed
                }),
                Err(fault) => Err(fault),
            }
        };
        let mut passed = match (passed, stored.failed()) {
            (_, Some(error)) => return Err(Stopped::State(error)),
            (Err(fault), None) => return Err(failed(fault)),
            (Ok(passed), None) => passed,
        };
        if let Some(watermark) = watermark.as_mut().filter(|_| at == 0) {
            assign(watermark, &mut passed, caller.names());
            outcome.times = Some((watermark.newest(), watermark.current()));
        }
        let mut aside = std::mem::take(&mut passed.rejects);
        outcome.rows.append(&mut passed.rows);
        outcome.appends.append(&mut passed.appends);
        if at == last {
            let parts = divide(std::mem::take(&mut passed.events), caller.names(), place, outcome.times.is_some());
            for (partition, events) in parts {
                let cut = cut(events, caller.names());
                for event in &cut.too_large {
                    put_aside_too_large(event, caller.names(), &mut aside, &mut passed.counts);
                }
                outcome.out.extend(cut.hops.into_iter().map(|hop| (partition, hop)));
            }
        }
        outcome.counts.push((name.clone(), passed.counts));
        if !aside.is_empty() {
            outcome.aside.push((name, aside));
        }
        let hop = Hop::pack(passed.events, caller.names());
        work = Work::of_hop(hop).map_err(Fault::from).map_err(failed)?;
        stage.keep(component, caller);
    }
    Ok(outcome)
}

async fn decode(
    caller: &mut tapeline_invoke::Caller<tapeline_runtime::WasmInstance>,
    work: Work,
) -> Result<Passed, Fault> {
    match work {
        Work::Records { format, received, records } => {
            let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
            caller.decode(&records, Asking { format: Some(&format), received: Some(received) }).await
        }
        Work::Events { events, .. } => Ok(Passed { events, ..Passed::default() }),
    }
}

/// Events with the names of who takes them.
fn unpack(work: Work, names: &mut Names) -> Result<Batch, batch::Breach> {
    match work {
        Work::Events { events, names: theirs } => Hop::pack(events, &theirs).unpack(names),
        Work::Records { .. } => Err(batch::Breach("records for a stage that takes events".to_owned())),
    }
}

/// Puts marks between the events, and puts aside those that are not believed.
fn assign(watermark: &mut Watermark, passed: &mut Passed, names: &Names) {
    let events = std::mem::take(&mut passed.events);
    if events.groups.is_empty() {
        events.marks.iter().for_each(|mark| watermark.raise(*mark));
        passed.events = events;
        return;
    }
    let assigned = watermark.assign(events);
    for early in &assigned.early {
        write_dead_event(&early.group, 0, &early.reason, names, &mut passed.rejects);
    }
    let early = assigned.early.len() as u64;
    passed.counts.out -= early;
    passed.counts.dead += early;
    passed.events = assigned.batch;
}

/// Events by the partition that they go on to. Marks go to all.
fn divide<B>(events: Batch, names: &Names, place: &Place<'_, B>, is_first: bool) -> Vec<(u32, Batch)> {
    if !is_first {
        return vec![(place.partition, events)];
    }
    if place.partitions == 1 {
        return vec![(0, events)];
    }
    let part = |partition| {
        let is_here = |group: &tapeline_invoke::contract::Group, at: usize| {
            let symbol = group.symbol.get(at).map_or("", |symbol| names.text(Name(*symbol)));
            partition_of(symbol, place.partitions) == partition
        };
        (partition, batch::filter(events.clone(), is_here))
    };
    (0..place.partitions).map(part).collect()
}

fn put_aside_too_large(event: &Batch, names: &Names, aside: &mut Vec<u8>, counts: &mut Counts) {
    let Some(group) = event.groups.first() else { return };
    let reason = format!("it does not fit into a message of {} bytes", message::PAYLOAD_BYTES_MAX);
    write_dead_event(group, 0, &reason, names, aside);
    counts.out = counts.out.saturating_sub(1);
    counts.dead += 1;
}

fn alarms(events: &Batch, names: &Names) -> Vec<String> {
    let lines = batch::elements(events).filter_map(|element| match element {
        Element::Event { group, at } => {
            let group = events.groups.get(group).filter(|group| group.columns.kind() == Kind::Alarm)?;
            Some(batch::to_line(group, at, names))
        }
        Element::Mark(_) => None,
    });
    lines.collect()
}

/// What comes of one record, or event, or mark that a stage fails on: it is put aside.
pub(crate) fn put_aside(stages: &[Stage], at: usize, work: &Work, fault: &Fault) -> Outcome {
    let mut outcome = Outcome::default();
    let mut lines = Vec::new();
    let reason = fault.to_string();
    let mut count = 1;
    match work {
        Work::Records { records, .. } => {
            records.iter().for_each(|record| write_dead_record(record, &reason, &mut lines));
        }
        Work::Events { events, names } => {
            for group in &events.groups {
                write_dead_event(group, 0, &reason, names, &mut lines);
            }
            count = batch::event_count(events) as u64;
        }
    }
    let counts = |dead, out| Counts { entered: count, dead, out, ..Counts::default() };
    for stage in stages.get(..at).unwrap_or_default() {
        outcome.counts.push((stage.settings.name.clone(), counts(0, count)));
    }
    if let Some(stage) = stages.get(at) {
        outcome.counts.push((stage.settings.name.clone(), counts(count, 0)));
        outcome.aside.push((stage.settings.name.clone(), lines));
    }
    outcome
}

/// Adds what was counted.
pub(crate) fn add_counts(total: &mut BTreeMap<String, Counts>, counts: Vec<(String, Counts)>) {
    for (stage, counts) in counts {
        total.entry(stage).or_default().add(&counts);
    }
}
