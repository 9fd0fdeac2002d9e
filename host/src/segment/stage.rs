//! One stage at work: calls it, checks and counts what it answers, and when it fails finds out which record is to blame.
//!
//! What runs beside it, and how another version takes its place, is in `change.rs`.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Instant};

use super::{
    Failure, Role,
    blueprint::Blueprint,
    companion::{Companion, Key, key_of},
    outcome::{Outcome, symbol_text},
    plans::News,
    running::{Answer, Running, Shown},
    warm_up::WarmUp,
};
use crate::{
    batch::{self, Element},
    contract::{Batch, Decoded, Entry, Fate, Frames, Group, Output, Reject},
    error::{Error, Kind, Result},
    names::Names,
    runtime::Fault,
    store::{Aside, DeadLetter, Runs, StateStore},
};

use tapeline_invoke::NOT_WRITTEN;

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
    pub(super) index: usize,
    pub(super) live: Running,
    pub(super) watermark: i64,
    /// Whether a commit has said what runs.
    pub(super) is_noted: bool,
    /// Whether the live version had stood by, and went on with its own state.
    pub(super) has_own_state: bool,
    /// Changes of the state that are not committed and that the instance no longer reports.
    pub(super) pending: BTreeMap<Key, Entry>,
    /// What must be committed although the live version has not changed it: it took the place of another, which had
    /// committed another state.
    pub(super) takeover: BTreeMap<Key, Entry>,
    pub(super) companion: Option<Companion>,
    pub(super) warm_up: Option<WarmUp>,
    /// Whether it runs what it was told to run last.
    pub(super) is_settled: bool,
    /// A version that could not be started.
    pub(super) unfit: Option<u64>,
    /// What has happened, to be told behind the next commit.
    pub(super) news: Vec<News>,
    /// Whether it was told what runs since the worker has begun.
    pub(super) has_told: bool,
    /// When it was last told how the candidate compares, and on how many records then.
    pub(super) told: (Instant, u64),
}

impl StageWorker {
    pub(super) fn new(index: usize, blueprint: Box<dyn Blueprint>) -> Result<Self> {
        let blueprint: Arc<dyn Blueprint> = blueprint.into();
        let failed = |fault: Fault| Error::caused(Kind::Invalid, format!("start stage {}", blueprint.name()), fault);
        Ok(Self {
            index,
            live: Running::new(Arc::clone(&blueprint)).map_err(failed)?,
            watermark: i64::MIN,
            is_noted: false,
            has_own_state: false,
            pending: BTreeMap::new(),
            takeover: BTreeMap::new(),
            companion: None,
            warm_up: None,
            is_settled: false,
            unfit: None,
            news: Vec::new(),
            has_told: false,
            told: (Instant::now(), 0),
        })
    }

    /// Name of the stage in its pipeline.
    pub fn name(&self) -> &str {
        self.live.blueprint.name()
    }

    /// Goes back to the committed state.
    pub(super) fn rewind(&mut self, store: &dyn StateStore, watermark: i64) -> Result<()> {
        self.pending = self.takeover.clone();
        self.is_noted = false;
        self.watermark = watermark;
        self.rewind_others();
        self.revive(store)
    }

    /// Makes the instance anew, with the committed state and the changes that are pending.
    fn revive(&mut self, store: &dyn StateStore) -> Result<()> {
        let mut entries: BTreeMap<Key, Entry> =
            store.state(self.name())?.into_iter().map(|entry| (key_of(&entry), entry)).collect();
        entries.extend(self.pending.iter().map(|(key, entry)| (key.clone(), entry.clone())));
        let entries: Vec<Entry> = entries.into_values().filter(|entry| entry.value.is_some()).collect();
        match self.live.revive(&entries, self.watermark) {
            Ok(()) => Ok(()),
            // It does not take back what it has written.
            Err(fault) if self.has_before() => {
                self.step_back(fault.to_string());
                Ok(())
            }
            Err(fault) => Err(Error::caused(Kind::Invalid, format!("restore stage {}", self.name()), fault)),
        }
    }

    /// The state entries that changed since this was last asked.
    pub(super) fn take_changes(&mut self) -> Result<Vec<Entry>, Failure> {
        self.collect_changes().map_err(|fault| self.failure(fault))?;
        if let Some(warm_up) = &mut self.warm_up {
            warm_up.committed(self.pending.values());
        }
        Ok(std::mem::take(&mut self.pending).into_values().collect())
    }

    /// What runs, for the first commit since it does.
    pub(super) fn note(&mut self) -> Option<Runs> {
        let (blueprint, has_own_state) = (&self.live.blueprint, self.has_own_state);
        let note = || Runs {
            stage: blueprint.name().to_owned(),
            digest: blueprint.digest().to_owned(),
            settings: blueprint.settings().to_owned(),
            has_own_state,
        };
        (!std::mem::replace(&mut self.is_noted, true)).then(note)
    }

    fn collect_changes(&mut self) -> Result<(), Fault> {
        let changes = match self.live.instance.checkpoint() {
            Err(fault) if self.has_before() => {
                self.step_back(fault.to_string());
                self.live.instance.checkpoint()?
            }
            changes => changes?,
        };
        self.collect_beside(&changes);
        self.pending.extend(changes.into_iter().map(|entry| (key_of(&entry), entry)));
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
        let limit = self.live.limit();
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
            self.live.instance.set_call_time_max(share.max(limit / SEARCH_TIME_DIVISOR));
            match attempt(self, range.clone(), None) {
                Ok(batch) => {
                    self.collect_changes().map_err(|fault| self.failure(fault))?;
                    done.extend(batch);
                }
                Err(fault) => failed.push((range, fault)),
            }
        }
        self.live.instance.set_call_time_max(limit);
        Ok(done)
    }

    fn try_decode(
        &mut self,
        frames: &mut Frames,
        offset: usize,
        names: &mut Names,
        out: &mut Outcome,
    ) -> Result<Batch, Fault> {
        let decoded = self.live.decode(frames, names);
        let decoded = match self.companion {
            None => decoded?,
            Some(_) => self.weigh_decoded(decoded, frames, names)?,
        };
        out.tally.decode(self.index, frames, &decoded);
        let Decoded { events, rejects, .. } = decoded;
        for reject in rejects {
            let frame = reject.frame as usize;
            let received = frames.received.get(frame).copied().filter(|received| *received != i64::MIN);
            let payload = reject.part.map_or_else(|| frame_bytes(frames, frame).to_vec(), String::into_bytes);
            out.dead_letters.push(DeadLetter {
                symbol: symbol_text(names, reject.symbol),
                received,
                format: frames.format.clone(),
                origin: out.origin.of(offset + frame),
                ..self.letter(reject.reason, payload)
            });
        }
        Ok(events)
    }

    fn try_process(&mut self, batch: Batch, names: &mut Names, out: &mut Outcome) -> Result<Batch, Fault> {
        let copy = self.has_others().then(|| batch.clone());
        let answered = self.live.process(batch, names);
        let (Shown { events, bypass }, Answer { output, rows, appends }) = match copy {
            None => answered?,
            Some(copy) => self.weigh(answered, copy, names)?,
        };
        if !(rows.is_empty() && appends.is_empty()) {
            out.write(rows, appends).map_err(Fault::Breach)?;
        }
        self.note_marks(&events);
        self.settle(&events, &output, names, out);
        Ok(self.leave(batch::merge(events, bypass, output), out))
    }

    /// What the writer was not shown leaves the pipeline here, and is counted.
    fn leave(&self, batch: Batch, out: &mut Outcome) -> Batch {
        if self.live.blueprint.role() != Role::Writer {
            return batch;
        }
        let is_left = |group: &&Group| !self.live.takes.has(group.columns.kind());
        out.tally.drop_all(self.index, batch.groups.iter().filter(is_left), NOT_WRITTEN);
        batch::empty()
    }

    fn note_marks(&mut self, events: &Batch) {
        let newest = events.marks.iter().copied().filter(|mark| !super::is_end(*mark)).max();
        self.watermark = self.watermark.max(newest.unwrap_or(i64::MIN));
    }

    /// Counts the fates, and keeps aside what is late or refused.
    fn settle(&self, events: &Batch, output: &Output, names: &Names, out: &mut Outcome) {
        out.tally.settle(self.index, events, output);
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
            component: self.live.blueprint.digest().to_owned(),
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
