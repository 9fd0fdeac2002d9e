//! The stages of this function, one after the other: work in, outcome out. Knows no service but the store of the state.

use std::collections::BTreeMap;

use tapeline_aws_protocol::{check_append, check_rows};
use tapeline_events::{Kind, Name, Unit, format_time};
use tapeline_invoke::{
    Asking, Caller, Early, Hop, Passed, Role, Tally, WATERMARK_STAGE, Watermark,
    answer::{write_dead_event, write_dead_record},
    batch::{self, Element},
    contract::{Append, Batch, Group, Rows},
    names::Names,
    partition_of,
};
use tapeline_runtime::{Component, Fault, WasmInstance};
use tapeline_state::{Bucket, Changes, Root, Scope, StateError};

use crate::{
    message::{self, cut},
    position::Position,
    settings::Entrance,
    sink::Line,
    stage::{Stage, Stored, newest},
    work::Work,
};

/// What came of work. Nothing of it has happened yet.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What goes on, to which partition, in order.
    pub(crate) out: Vec<(u32, Hop)>,
    /// Rows of the writer.
    pub(crate) rows: Vec<Rows>,
    /// Its appends.
    pub(crate) appends: Vec<Append>,
    /// JSON lines of the alarms among what the writer was given.
    pub(crate) alarms: Vec<String>,
    /// JSON lines of records that are late or dead, by the stage that put them aside.
    pub(crate) aside: Vec<(String, Vec<u8>)>,
    /// What was counted, by stage, symbol and day.
    pub(crate) ledger: Vec<Line>,
    /// What changed of the state.
    pub(crate) changes: Vec<Changes>,
    /// Newest event time and watermark, where they are made.
    pub(crate) times: Option<(i64, i64)>,
}

/// Why nothing came of it.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// The state could not be read.
    State(StateError),
    /// A stage did not start: whatever it is given, it cannot work.
    Start {
        /// Its place in the chain.
        at: usize,
        /// Why.
        fault: Fault,
    },
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
    pub(crate) scope: &'a Scope<'a, B, Position>,
    /// As it was committed last.
    pub(crate) before: &'a Root<Position>,
    /// The partition.
    pub(crate) partition: u32,
    /// Partitions of the pipeline.
    pub(crate) partitions: u32,
    /// Of the first function.
    pub(crate) entrance: Option<&'a Entrance>,
    /// Stages that are not called, by their places: what they would be given is put aside, for these reasons.
    pub(crate) aside: &'a BTreeMap<u32, String>,
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
    let last = stages.len().saturating_sub(1);
    for (at, (stage, component)) in stages.iter_mut().zip(components).enumerate() {
        let name = stage.settings.name.clone();
        let mut caller = stage.take(component).await.map_err(|fault| Stopped::Start { at, fault })?;
        let failed = |fault| Stopped::Stage { at, fault };
        caller.start_tally();
        let called = match u32::try_from(at).ok().and_then(|at| place.aside.get(&at)) {
            Some(reason) => put_aside(work, reason, caller.names()).map_err(Fault::from).map_err(failed)?,
            None => {
                let called = call(&mut caller, component, place, &name, work, &mut outcome).await;
                let passed = called.map_err(|stopped| match stopped {
                    Called::State(error) => Stopped::State(error),
                    Called::Fault(fault) => failed(fault),
                })?;
                (passed, caller.take_tally())
            }
        };
        let (mut passed, mut tally) = called;
        let mut aside = std::mem::take(&mut passed.rejects);
        let mut aside_behind = Vec::new();
        if let Some(entrance) = place.entrance.filter(|_| at == 0) {
            let mut watermark = Watermark::new(entrance.watermark);
            watermark.set(place.before.meta.newest, place.before.meta.watermark);
            let events = std::mem::take(&mut passed.events);
            passed.events = assign(&mut watermark, events, caller.names(), &mut aside_behind, &mut tally);
            outcome.times = Some((watermark.newest(), watermark.current()));
        }
        outcome.rows.append(&mut passed.rows);
        outcome.appends.append(&mut passed.appends);
        let events = std::mem::take(&mut passed.events);
        if at == last {
            for (partition, events) in divide(events, caller.names(), place) {
                let cut = cut(events, caller.names());
                // What has come past our own step is put aside by that.
                let is_behind = place.entrance.is_some() && at == 0;
                let (by, aside) = if is_behind { (BEHIND_IT, &mut aside_behind) } else { (STAGE, &mut aside) };
                for event in &cut.too_large {
                    put_aside_too_large(event, caller.names(), aside, (&mut tally, by));
                }
                outcome.out.extend(cut.hops.into_iter().map(|hop| (partition, hop)));
            }
            work = Work::nothing();
        } else {
            let hop = Hop::pack(events, caller.names());
            work = Work::of_hop(hop).map_err(Fault::from).map_err(failed)?;
        }
        outcome.ledger.extend(Line::of(tally.take(&[(STAGE, &name), (BEHIND_IT, WATERMARK_STAGE)], caller.names())));
        let aside = [(name, aside), (WATERMARK_STAGE.to_owned(), aside_behind)];
        outcome.aside.extend(aside.into_iter().filter(|(_, lines)| !lines.is_empty()));
        stage.keep(component, caller);
    }
    Ok(outcome)
}

/// The stage at hand in a tally, and our own step behind the first one.
const STAGE: usize = 0;
const BEHIND_IT: usize = 1;

/// Why a call of a stage came to nothing.
enum Called {
    State(StateError),
    Fault(Fault),
}

async fn call<B: Bucket>(
    caller: &mut Caller<WasmInstance>,
    component: &Component,
    place: &Place<'_, B>,
    name: &str,
    work: Work,
    outcome: &mut Outcome,
) -> Result<Passed, Called> {
    if component.role() == Role::Fetcher {
        return decode(caller, work).await.map_err(Called::Fault);
    }
    let area = place.before.areas.get(name).cloned().unwrap_or_default();
    let mut stored = Stored::new(place.scope, place.before.id(), &area);
    let events = unpack(work, caller.names()).map_err(Fault::from).map_err(Called::Fault)?;
    if component.role() == Role::Writer {
        outcome.alarms = alarms(&events, caller.names());
    }
    let told = newest(&events.marks);
    let passed = match caller.pass(events, Some(&mut stored)).await {
        Ok(passed) => passed,
        Err(fault) => return Err(stored.failed().map_or(Called::Fault(fault), Called::State)),
    };
    outcome.changes.push(stored.changes(name, caller, told).await.map_err(Called::Fault)?);
    check_written(&passed).map_err(|message| Called::Fault(Fault::Breach(message)))?;
    Ok(passed)
}

/// Whether what a writer gives can be written: what is committed must not be refused.
fn check_written(passed: &Passed) -> Result<(), String> {
    passed.rows.iter().try_for_each(check_rows)?;
    passed.appends.iter().try_for_each(check_append)
}

async fn decode(caller: &mut Caller<WasmInstance>, work: Work) -> Result<Passed, Fault> {
    match work {
        Work::Records { format, received, records } => {
            let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
            caller.decode(&records, Asking { format: Some(&format), received: Some(received) }).await
        }
        // Marks are for those behind it.
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

/// What goes on when a stage is not given something: its marks.
fn put_aside(work: Work, reason: &str, names: &mut Names) -> Result<(Passed, Tally), batch::Breach> {
    let (mut passed, mut tally) = (Passed::default(), Tally::default());
    match work {
        Work::Records { records, .. } => {
            for record in &records {
                write_dead_record(record, reason, &mut passed.rejects);
                tally.refuse(STAGE, None, None);
            }
        }
        work @ Work::Events { .. } => {
            let mut events = unpack(work, names)?;
            for group in &events.groups {
                for (at, (symbol, time)) in group.symbol.iter().zip(&group.time).enumerate() {
                    write_dead_event(group, at, reason, names, &mut passed.rejects);
                    tally.refuse(STAGE, Some(*symbol), Some(*time));
                }
            }
            // A mark is no record, and is counted nowhere; that it was not told must not be forgotten.
            for mark in &events.marks {
                let mark = format!("watermark {}", format_time(*mark, Unit::Nanoseconds));
                write_dead_record(mark.as_bytes(), reason, &mut passed.rejects);
            }
            let marks = std::mem::take(&mut events.marks);
            batch::replace_marks(&mut passed.events, marks);
        }
    }
    Ok((passed, tally))
}

/// Puts marks between the events, and puts aside those that are not believed.
fn assign(watermark: &mut Watermark, events: Batch, names: &Names, aside: &mut Vec<u8>, tally: &mut Tally) -> Batch {
    if events.groups.is_empty() {
        events.marks.iter().for_each(|mark| watermark.raise(*mark));
        return events;
    }
    let assigned = watermark.assign(events);
    tally.pass(BEHIND_IT, &assigned.batch);
    for Early { group, reason } in &assigned.early {
        write_dead_event(group, 0, reason, names, aside);
        tally.refuse(BEHIND_IT, group.symbol.first().copied(), group.time.first().copied());
    }
    assigned.batch
}

/// Events by the partition that they go on to: behind the first function by their symbols. Marks go to all.
fn divide<B>(events: Batch, names: &Names, place: &Place<'_, B>) -> Vec<(u32, Batch)> {
    if place.entrance.is_none() {
        return vec![(place.partition, events)];
    }
    if place.partitions == 1 {
        return vec![(0, events)];
    }
    let part = |partition| {
        let is_here = |group: &Group, at: usize| {
            let symbol = group.symbol.get(at).map_or("", |symbol| names.text(Name(*symbol)));
            partition_of(symbol, place.partitions) == partition
        };
        (partition, batch::filter(events.clone(), is_here))
    };
    (0..place.partitions).map(part).collect()
}

fn put_aside_too_large(event: &Batch, names: &Names, aside: &mut Vec<u8>, (tally, by): (&mut Tally, usize)) {
    let Some(group) = event.groups.first() else { return };
    let reason = format!("it does not fit into a message of {} bytes", message::PAYLOAD_BYTES_MAX);
    write_dead_event(group, 0, &reason, names, aside);
    if let (Some(symbol), Some(time)) = (group.symbol.first(), group.time.first()) {
        tally.bury(by, *symbol, *time);
    }
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
