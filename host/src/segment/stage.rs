//! One stage at work: calls it, checks and counts what it answers, and when it fails finds out which record is to blame.

use std::{collections::BTreeMap, fmt, ops::Range, time::Duration};

use super::{
    Failure,
    outcome::{Outcome, symbol_text},
};
use crate::{
    batch::{self, Breach, Bypass, Element},
    contract::{Batch, Decoded, Entry, Fate, Frames, GROUPS_MAX, Group, Input, KindSet, Output, Reject},
    error::{Error, Kind, Result},
    names::{Names, Told},
    runtime::{Fault, Instance},
    store::{Aside, DeadLetter, StateStore},
};

/// What a component is good for in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the worlds are documented in wit/stage.wit")]
pub enum Role {
    Fetcher,
    Stage,
    Writer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fetcher => "fetcher",
            Self::Stage => "stage",
            Self::Writer => "writer",
        })
    }
}

/// What a stage is made from, as often as need be: a compiled component with its settings and limits, or, in tests and
/// benchmarks, native code.
pub trait Blueprint: Send {
    /// Name of the stage in its pipeline.
    fn name(&self) -> &str;

    /// What it is good for.
    fn role(&self) -> Role;

    /// SHA-256 of the component, in hex.
    fn digest(&self) -> &str;

    /// Its settings, a JSON object.
    fn settings(&self) -> &str;

    /// Time that a call may take.
    fn call_time_max(&self) -> Duration;

    /// Makes an instance that has its settings.
    ///
    /// # Errors
    /// When it does not start, or refuses the settings.
    fn instantiate(&self) -> Result<Box<dyn Instance>, Fault>;
}

/// How to treat a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Report it; the caller starts over.
    Fast,
    /// Find the records that are to blame, put them aside, go on with the rest.
    Careful,
}

/// Part of a stage's time limit that a single record gets while the one to blame is looked for. A batch that loops
/// costs its whole limit once and then one such part for each halving.
const SEARCH_TIME_DIVISOR: u32 = 10;

/// A stage and all that its worker must know to make it anew.
pub struct StageWorker {
    index: usize,
    blueprint: Box<dyn Blueprint>,
    instance: Box<dyn Instance>,
    told: Told,
    takes: KindSet,
    watermark: i64,
    /// Whether a commit has said what runs.
    is_noted: bool,
    /// Changes of the state that are not committed and that the instance no longer reports.
    pending: BTreeMap<(String, u64), Entry>,
}

impl StageWorker {
    pub(super) fn new(index: usize, blueprint: Box<dyn Blueprint>) -> Result<Self> {
        let failed = |fault: Fault| Error::caused(Kind::Invalid, format!("start stage {}", blueprint.name()), fault);
        let mut instance = blueprint.instantiate().map_err(failed)?;
        let takes = instance.describe().map_err(failed)?.takes.into();
        Ok(Self {
            index,
            blueprint,
            instance,
            told: Told::default(),
            takes,
            watermark: i64::MIN,
            is_noted: false,
            pending: BTreeMap::new(),
        })
    }

    /// Name of the stage in its pipeline.
    pub fn name(&self) -> &str {
        self.blueprint.name()
    }

    /// Goes back to the committed state.
    pub(super) fn rewind(&mut self, store: &dyn StateStore, watermark: i64) -> Result<()> {
        self.pending.clear();
        self.is_noted = false;
        self.watermark = watermark;
        self.revive(store)
    }

    /// Makes the instance anew, with the committed state and the changes that are pending.
    fn revive(&mut self, store: &dyn StateStore) -> Result<()> {
        let mut entries: BTreeMap<(String, u64), Entry> =
            store.state(self.name())?.into_iter().map(|entry| ((entry.key.clone(), entry.part), entry)).collect();
        entries.extend(self.pending.iter().map(|(key, entry)| (key.clone(), entry.clone())));
        let entries: Vec<Entry> = entries.into_values().filter(|entry| entry.value.is_some()).collect();
        let failed =
            |fault: Fault| Error::caused(Kind::Invalid, format!("restore stage {}", self.blueprint.name()), fault);
        let mut instance = self.blueprint.instantiate().map_err(failed)?;
        instance.restore(&entries, self.watermark).map_err(failed)?;
        self.instance = instance;
        self.told = Told::default();
        Ok(())
    }

    /// The state entries that changed since this was last asked.
    pub(super) fn take_changes(&mut self) -> Result<Vec<Entry>, Failure> {
        self.collect_changes().map_err(|fault| self.failure(fault))?;
        Ok(std::mem::take(&mut self.pending).into_values().collect())
    }

    /// What runs, for the first commit since it does.
    pub(super) fn note(&mut self) -> Option<(String, String, String)> {
        let blueprint = &self.blueprint;
        let note = || (blueprint.name().to_owned(), blueprint.digest().to_owned(), blueprint.settings().to_owned());
        (!std::mem::replace(&mut self.is_noted, true)).then(note)
    }

    fn collect_changes(&mut self) -> Result<(), Fault> {
        for entry in self.instance.checkpoint()? {
            self.pending.insert((entry.key.clone(), entry.part), entry);
        }
        Ok(())
    }

    fn failure(&self, fault: Fault) -> Failure {
        Failure::Fault { stage: self.name().to_owned(), fault }
    }

    /// Runs the first stage over frames.
    pub(super) fn decode(
        &mut self,
        frames: &mut Frames,
        mode: Mode,
        store: &dyn StateStore,
        names: &mut Names,
        out: &mut Outcome,
    ) -> Result<Vec<Batch>, Failure> {
        let first = match self.try_decode(frames, 0, names, out) {
            Ok(batch) => return Ok(vec![batch]),
            Err(fault) if mode == Mode::Fast => return Err(self.failure(fault)),
            Err(fault) => fault,
        };
        let whole = frames.clone();
        self.search(whole.ends.len(), first, store, |stage, range, fault| match fault {
            None => stage.try_decode(&mut slice_frames(&whole, range.clone()), range.start, names, out).map(Some),
            Some(fault) => {
                let payload = slice_frames(&whole, range.clone());
                stage.refuse_frame(range.start, payload.bytes, fault.to_string(), out);
                Ok(None)
            }
        })
    }

    /// Runs a stage, or the writer, over a batch.
    pub(super) fn process(
        &mut self,
        batch: Batch,
        mode: Mode,
        store: &dyn StateStore,
        names: &mut Names,
        out: &mut Outcome,
    ) -> Result<Vec<Batch>, Failure> {
        if mode == Mode::Fast {
            let batch = self.try_process(batch, names, out).map_err(|fault| self.failure(fault))?;
            return Ok(vec![batch]);
        }
        let first = match self.try_process(batch.clone(), names, out) {
            Ok(done) => {
                self.collect_changes().map_err(|fault| self.failure(fault))?;
                return Ok(vec![done]);
            }
            Err(fault) => fault,
        };
        let elements: Vec<Element> = batch::elements(&batch).collect();
        self.search(elements.len(), first, store, |stage, range, fault| match (fault, elements.get(range.start)) {
            (None, _) => stage.try_process(batch::slice(&batch, range), names, out).map(Some),
            (Some(fault), Some(Element::Event { group, at })) => {
                stage.refuse_event(&batch.groups[*group], *at, fault.to_string(), Aside::Dead, names, out);
                let index = stage.index;
                let group = &batch.groups[*group];
                out.tally.refuse(index, Some(group.symbol[*at]), Some(group.time[*at]));
                Ok(None)
            }
            (Some(fault), _) => {
                // No event is to blame: a timer is. It is due again at the next mark; this mark goes on without it.
                tracing::error!(stage = stage.name(), %fault, "a timer failed; it is tried again at the next mark");
                Ok(Some(batch::slice(&batch, range)))
            }
        })
    }

    /// Halves what failed until single records are left, which `attempt` is then told the fault of.
    fn search(
        &mut self,
        len: usize,
        first: Fault,
        store: &dyn StateStore,
        mut attempt: impl FnMut(&mut Self, Range<usize>, Option<&Fault>) -> Result<Option<Batch>, Fault>,
    ) -> Result<Vec<Batch>, Failure> {
        tracing::warn!(stage = self.name(), fault = %first, records = len, "looking for the records to blame");
        let limit = self.blueprint.call_time_max();
        let mut done = Vec::new();
        let mut failed = vec![(0..len, first)];
        let mut open: Vec<Range<usize>> = Vec::new();
        loop {
            if let Some((range, fault)) = failed.pop() {
                self.revive(store)?;
                if range.len() <= 1 {
                    let left = attempt(self, range, Some(&fault)).map_err(|fault| self.failure(fault))?;
                    done.extend(left);
                } else {
                    let middle = range.start + range.len() / 2;
                    open.push(middle..range.end);
                    open.push(range.start..middle);
                }
            }
            let Some(range) = open.pop() else { break };
            let share = limit * range.len() as u32 / len.max(1) as u32;
            self.instance.set_call_time_max(share.max(limit / SEARCH_TIME_DIVISOR));
            match attempt(self, range.clone(), None) {
                Ok(batch) => {
                    self.collect_changes().map_err(|fault| self.failure(fault))?;
                    done.extend(batch);
                }
                Err(fault) => failed.push((range, fault)),
            }
        }
        self.instance.set_call_time_max(limit);
        Ok(done)
    }

    fn try_decode(
        &mut self,
        frames: &mut Frames,
        offset: usize,
        names: &mut Names,
        out: &mut Outcome,
    ) -> Result<Batch, Fault> {
        frames.names = self.told.untold(names);
        let mut decoded = self.instance.decode(frames)?;
        let breach = |breach: Breach| Fault::Breach(breach.to_string());
        check_decoded(frames, &decoded).map_err(breach)?;
        self.told.coin(&decoded.names, names);
        self.told.resolve_batch(&mut decoded.events).map_err(breach)?;
        out.tally.pass(self.index, &decoded.events);
        for mut dropped in decoded.dropped {
            dropped.symbol = dropped.symbol.and_then(|symbol| self.told.resolve(symbol));
            out.tally.drop_records(self.index, &dropped);
        }
        for reject in decoded.rejects {
            let frame = reject.frame as usize;
            let symbol = reject.symbol.and_then(|symbol| self.told.resolve(symbol));
            let received = frames.received.get(frame).copied().filter(|received| *received != i64::MIN);
            out.tally.refuse(self.index, symbol, received);
            let payload = reject.part.map_or_else(|| frame_bytes(frames, frame).to_vec(), String::into_bytes);
            out.dead_letters.push(DeadLetter {
                symbol: symbol_text(names, symbol),
                received,
                format: frames.format.clone(),
                origin: out.origin.of(offset + frame),
                ..self.letter(reject.reason, payload)
            });
        }
        Ok(decoded.events)
    }

    fn try_process(&mut self, batch: Batch, names: &mut Names, out: &mut Outcome) -> Result<Batch, Fault> {
        let (events, bypass) = batch::select(batch, self.takes);
        let breach = |breach: Breach| Fault::Breach(breach.to_string());
        if events.groups.is_empty() && events.marks.is_empty() {
            return Ok(self.leave(batch::rejoin(events, bypass), out));
        }
        let group_count = bypass.as_ref().map_or(events.groups.len(), Bypass::group_count);
        let input = Input { names: self.told.untold(names), events };
        let output = if self.blueprint.role() == Role::Writer {
            let written = self.instance.write(&input)?;
            let output = Output {
                names: Vec::new(),
                fates: written.fates,
                rules: written.rules,
                rejects: written.rejects,
                emitted: batch::empty(),
            };
            batch::check_answer(&input.events, &output).map_err(breach)?;
            out.write(written.rows, written.appends);
            output
        } else {
            let mut output = self.instance.process(&input)?;
            batch::check_answer(&input.events, &output).map_err(breach)?;
            if group_count + output.emitted.groups.len() > GROUPS_MAX {
                return Err(Fault::Breach(format!("{} groups are too many", output.emitted.groups.len())));
            }
            self.told.coin(&output.names, names);
            self.told.resolve_batch(&mut output.emitted).map_err(breach)?;
            output
        };
        self.note_marks(&input.events);
        self.settle(&input.events, &output, names, out);
        Ok(self.leave(batch::merge(input.events, bypass, output), out))
    }

    /// What the writer was not shown leaves the pipeline here, and is counted.
    fn leave(&self, batch: Batch, out: &mut Outcome) -> Batch {
        if self.blueprint.role() != Role::Writer {
            return batch;
        }
        for group in batch.groups.into_iter().filter(|group| !self.takes.has(group.columns.kind())) {
            let alone = Batch { groups: vec![group], order: Vec::new(), marks: Vec::new() };
            out.tally.drop_all(self.index, &alone, "not-written");
        }
        batch::empty()
    }

    fn note_marks(&mut self, events: &Batch) {
        let newest = events.marks.iter().copied().filter(|mark| !super::is_end(*mark)).max();
        self.watermark = self.watermark.max(newest.unwrap_or(i64::MIN));
    }

    /// Counts the fates, and keeps aside what is late or refused.
    fn settle(&self, events: &Batch, output: &Output, names: &Names, out: &mut Outcome) {
        out.tally.settle(self.index, events, &output.fates, &output.rules);
        let replaced = output.fates.iter().filter(|fate| **fate == Fate::REPLACED).count();
        if replaced == 0 {
            out.tally.derive(self.index, &output.emitted);
        }
        if !output.fates.iter().any(|fate| matches!(*fate, Fate::LATE | Fate::REJECT)) {
            return;
        }
        let mut rejects = output.rejects.iter();
        let events = batch::elements(events).filter_map(|element| match element {
            Element::Event { group, at } => Some((&events.groups[group], at)),
            Element::Mark(_) => None,
        });
        for ((group, at), fate) in events.zip(&output.fates) {
            let (aside, reason) = match *fate {
                Fate::LATE => (Aside::Late, late_reason(self.watermark)),
                Fate::REJECT => (Aside::Dead, rejects.next().map_or_else(String::new, reason_of)),
                _ => continue,
            };
            self.refuse_event(group, at, reason, aside, names, out);
        }
    }

    fn refuse_event(&self, group: &Group, at: usize, reason: String, aside: Aside, names: &Names, out: &mut Outcome) {
        let letter = DeadLetter {
            aside,
            symbol: symbol_text(names, Some(group.symbol[at])),
            time: Some(group.time[at]),
            received: group.received_at(at),
            origin: out.origin.whole(),
            ..self.letter(reason, batch::to_line(group, at, names).into_bytes())
        };
        out.dead_letters.push(letter);
    }

    /// Puts a whole frame aside.
    pub(super) fn refuse_frame(&self, at: usize, payload: Vec<u8>, reason: String, out: &mut Outcome) {
        out.tally.refuse(self.index, None, None);
        let origin = out.origin.of(at);
        out.dead_letters.push(DeadLetter { origin, format: out.format.clone(), ..self.letter(reason, payload) });
    }

    fn letter(&self, reason: String, payload: Vec<u8>) -> DeadLetter {
        DeadLetter {
            id: 0,
            aside: Aside::Dead,
            stage: self.name().to_owned(),
            component: self.blueprint.digest().to_owned(),
            symbol: String::new(),
            time: None,
            reason: super::short(reason),
            origin: String::new(),
            format: "events".to_owned(),
            received: None,
            payload,
            partition: None,
            is_redriven: false,
        }
    }
}

fn late_reason(watermark: i64) -> String {
    let watermark = tapeline_events::format_time(watermark, tapeline_events::Unit::Milliseconds);
    format!("late: its time was over for this stage (the watermark of the batch was {watermark})")
}

fn reason_of(reject: &Reject) -> String {
    reject.reason.clone()
}

fn frame_bytes(frames: &Frames, at: usize) -> &[u8] {
    let start = if at == 0 { 0 } else { frames.ends.get(at - 1).map_or(0, |end| *end as usize) };
    let end = frames.ends.get(at).map_or(start, |end| *end as usize);
    frames.bytes.get(start..end).unwrap_or(&[])
}

fn slice_frames(frames: &Frames, range: Range<usize>) -> Frames {
    let start = if range.start == 0 { 0 } else { frames.ends[range.start - 1] };
    let ends: Vec<u32> = frames.ends[range.clone()].iter().map(|end| end - start).collect();
    let length = ends.last().map_or(0, |end| *end as usize);
    Frames {
        names: Vec::new(),
        format: frames.format.clone(),
        received: frames.received.get(range).map(<[i64]>::to_vec).unwrap_or_default(),
        bytes: frames.bytes[start as usize..start as usize + length].to_vec(),
        ends,
    }
}

/// Whether every frame is accounted for.
fn check_decoded(frames: &Frames, decoded: &Decoded) -> Result<(), Breach> {
    batch::check(&decoded.events)?;
    if decoded.records.len() != frames.ends.len() || decoded.records.contains(&0) {
        return Err(Breach(format!("{} of {} frames are accounted for", decoded.records.len(), frames.ends.len())));
    }
    let records: u64 = decoded.records.iter().map(|records| u64::from(*records)).sum();
    let dropped: u64 = decoded.dropped.iter().map(|dropped| dropped.count).sum();
    let found = batch::event_count(&decoded.events) as u64 + dropped + decoded.rejects.len() as u64;
    if records != found {
        return Err(Breach(format!("{records} records came in, {found} went out")));
    }
    match decoded.rejects.iter().find(|reject| reject.frame as usize >= frames.ends.len()) {
        Some(reject) => Err(Breach(format!("frame {} is rejected, of {}", reject.frame, frames.ends.len()))),
        None => Ok(()),
    }
}
