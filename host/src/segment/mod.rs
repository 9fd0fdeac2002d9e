//! The chain of stages in one worker: raw records in, outcome out. The heart of the host; knows no backend by name.
//!
//! A segment is used in one of two ways. The fast one stops at the first fault: whoever drives it throws away what was
//! not committed, and lets the same work run again the careful way, which finds the records that are to blame, puts
//! them into the dead letters and goes on with the rest.

mod blueprint;
mod change;
mod companion;
mod compare;
mod outcome;
mod plans;
mod running;
mod stage;
mod warm_up;

use std::sync::Arc;

pub use blueprint::Blueprint;
pub use compare::{Comparison, Difference};
pub use outcome::{NoTap, Origin, Outcome, Tap, Tapped};
pub use plans::{News, Plan, Plans, Probation, Shadow};
pub use stage::{Mode, StageWorker};
pub use tapeline_invoke::{Role, Tally, WATERMARK_STAGE, WatermarkSettings};
pub(crate) use tapeline_invoke::{Watermark, contract::is_end};

use crate::{
    batch::{self, Element},
    bus::{Entrance, Message},
    contract::{Batch, Frames},
    error::{Error, Kind, Result},
    names::Names,
    runtime::Fault,
    store::{Aside, DeadLetter, Progress, StateStore},
};

/// Something to be done. Kept until it is committed, so that it can be done again.
#[derive(Clone, Debug)]
pub enum Work {
    /// Frames for the first stage.
    Frames {
        /// The frames; their names are filled in when they are decoded.
        frames: Frames,
        /// Where they are stored.
        origin: Origin,
    },
    /// Events, as JSON lines, that enter at a later stage.
    Lines {
        /// Where they enter.
        enters: Entrance,
        /// The lines.
        bytes: Vec<u8>,
        /// When they were received.
        received: Option<i64>,
        /// Where they are stored.
        origin: Origin,
    },
    /// Raw records that cannot be decoded at all; each is a dead letter of the first stage.
    Unreadable {
        /// How they should have been read.
        format: String,
        /// What of the record is kept, and why it cannot be used.
        records: Vec<(Vec<u8>, String)>,
        /// Where they are stored.
        origin: Origin,
    },
    /// What the segment before gave out.
    Carried {
        /// Events, counts and dead letters.
        message: Message,
        /// Where it is stored.
        origin: Origin,
    },
    /// A watermark, ns since the epoch.
    Mark(i64),
}

impl Work {
    /// Number of frames, lines or marks.
    pub fn len(&self) -> usize {
        match self {
            Self::Frames { frames, .. } => frames.ends.len(),
            Self::Lines { bytes, .. } => memchr::memchr_iter(b'\n', bytes).count() + 1,
            Self::Unreadable { records, .. } => records.len(),
            Self::Carried { message, .. } => message.len(),
            Self::Mark(_) => 1,
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Stages of a pipeline in one worker: all of them, or neighbours.
pub struct Segment {
    stages: Vec<StageWorker>,
    /// Position of the first stage in the pipeline.
    first: usize,
    /// Whether it ends with the writer, behind which there is nothing.
    is_last: bool,
    /// The partition of a chain that it works on.
    partition: Option<u32>,
    names: Names,
    watermark: Watermark,
    outcome: Outcome,
    plans: Option<Arc<dyn Plans>>,
    /// Of the plans, when they were last followed.
    generation: u64,
}

/// Why work was not done.
#[derive(Debug)]
pub enum Failure {
    /// A stage failed; what was done since the last commit is void.
    Fault {
        /// The stage.
        stage: String,
        /// What happened.
        fault: Fault,
    },
    /// The host failed.
    Host(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Host(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Host(error) => error,
            Failure::Fault { stage, fault } => Self::caused(Kind::Internal, format!("run stage {stage}"), fault),
        }
    }
}

impl Segment {
    /// Makes the stages, with the state and the watermark that the store has.
    ///
    /// # Errors
    /// `Invalid` when a stage does not start, refuses its settings or its state, or the chain does not begin with a
    /// fetcher and end with a writer.
    pub fn new(
        blueprints: Vec<Box<dyn Blueprint>>,
        watermark: WatermarkSettings,
        tap: Box<dyn Tap>,
        store: &dyn StateStore,
    ) -> Result<Self> {
        check_chain(&blueprints)?;
        Self::part(blueprints, 0, watermark, tap, store)
    }

    /// Makes neighbouring stages of a pipeline, of which the first is its stage number `first`, from 0. What the last of
    /// them gives out goes into the commit, unless it is the writer. That the whole chain is in order is not checked.
    ///
    /// # Errors
    /// As [`Self::new`], but for the chain.
    pub fn part(
        blueprints: Vec<Box<dyn Blueprint>>,
        first: usize,
        watermark: WatermarkSettings,
        tap: Box<dyn Tap>,
        store: &dyn StateStore,
    ) -> Result<Self> {
        let names = Names::default();
        let mut stages = Vec::new();
        let is_last = blueprints.last().is_some_and(|blueprint| blueprint.role() == Role::Writer);
        for (index, blueprint) in blueprints.into_iter().enumerate() {
            stages.push(StageWorker::new(index, blueprint)?);
        }
        let (watermark, outcome) = (Watermark::new(watermark), Outcome::new(tap, store.check_written()));
        let mut segment =
            Self { stages, first, is_last, partition: None, names, watermark, outcome, plans: None, generation: 0 };
        segment.rewind(store, &store.progress()?)?;
        Ok(segment)
    }

    /// The same on a partition of a chain, which dead letters say then.
    pub fn on_partition(mut self, partition: Option<u32>) -> Self {
        self.partition = partition;
        self
    }

    /// The same with somebody who decides which version of each stage runs.
    pub fn with_plans(mut self, plans: Arc<dyn Plans>) -> Self {
        self.plans = Some(plans);
        self
    }

    /// Lets stages that are on probation go back to the version before; whether there was one. The caller does again what
    /// is not committed.
    pub(crate) fn step_back(&mut self, reason: &str) -> bool {
        self.stages.iter_mut().fold(false, |any, stage| stage.step_back(reason.to_owned()) | any)
    }

    /// Whether a stage is being brought to another version: commit boundaries are of use then.
    pub(crate) fn is_changing(&self) -> bool {
        self.plans.is_some() && self.stages.iter().any(StageWorker::is_changing)
    }

    /// Takes note that what it gave last is committed.
    pub(crate) fn committed(&mut self) {
        self.stages.iter_mut().for_each(StageWorker::committed);
    }

    /// Brings stages to the versions that they are to run, as far as that can be done without waiting. Called at commit
    /// boundaries, when nothing is uncommitted.
    pub(crate) fn follow(&mut self, store: &dyn StateStore) {
        let Some(plans) = self.plans.clone() else { return };
        let generation = plans.generation();
        let is_same = generation == self.generation;
        self.generation = generation;
        for stage in &mut self.stages {
            if (!is_same || stage.is_changing())
                && let Some(plan) = plans.plan(stage.name())
            {
                stage.follow(&plan, store, &mut self.names);
            }
            for news in stage.take_news() {
                plans.report(stage.name(), self.partition, news);
            }
        }
    }

    /// Throws away what was not committed: every stage is made anew from the store's state.
    ///
    /// # Errors
    /// When the store cannot be read, or a stage does not take its state back.
    pub fn rewind(&mut self, store: &dyn StateStore, progress: &Progress) -> Result<()> {
        self.outcome.clear();
        self.watermark.set(progress.newest, progress.watermark);
        for stage in &mut self.stages {
            stage.rewind(store, progress.watermark)?;
        }
        Ok(())
    }

    /// Does a piece of work. What comes of it is added to the outcome.
    ///
    /// # Errors
    /// A stage's fault in [`Mode::Fast`]; after it only [`Segment::rewind`] makes sense. In [`Mode::Careful`] a fault
    /// is an error of a stage that fails without any event to blame.
    pub fn run(&mut self, work: &mut Work, mode: Mode, store: &dyn StateStore) -> Result<(), Failure> {
        match work {
            Work::Frames { frames, .. } if frames.ends.is_empty() => Ok(()),
            Work::Frames { frames, origin } => {
                self.outcome.origin = origin.clone();
                self.outcome.format.clone_from(&frames.format);
                let batches = self.stages[0].decode(frames, mode, store, &mut self.names, &mut self.outcome)?;
                for batch in batches {
                    self.tap_output(0, &batch);
                    let batch = self.assign_watermarks(batch);
                    self.run_from(1, batch, mode, store)?;
                }
                Ok(())
            }
            Work::Lines { enters, bytes, received, origin } => {
                self.outcome.origin = origin.clone();
                match batch::from_lines(bytes.split(|byte| *byte == b'\n'), *received, &mut self.names) {
                    Ok(batch) => self.enter(enters, batch, mode, store),
                    Err((_, error)) => {
                        self.refuse(enters.stage.clone(), bytes.clone(), *received, error.to_string());
                        Ok(())
                    }
                }
            }
            Work::Unreadable { format, records, origin } => {
                self.outcome.origin = origin.clone();
                self.outcome.format.clone_from(format);
                for (at, (payload, reason)) in records.iter().enumerate() {
                    self.stages[0].refuse_frame(at, payload.clone(), reason.clone(), &mut self.outcome);
                }
                Ok(())
            }
            Work::Carried { message, origin } => {
                self.outcome.origin = origin.clone();
                self.outcome.trace = message.trace;
                self.outcome.pass_on(&message.ledger, &message.dead_letters);
                let batch = message.unpack(&mut self.names)?;
                if let Some(enters) = &message.enters {
                    return self.enter(enters, batch, mode, store);
                }
                match batch.marks.iter().copied().filter(|mark| !is_end(*mark)).max() {
                    Some(mark) => self.watermark.raise(mark),
                    None if batch.groups.is_empty() && batch.marks.is_empty() => return Ok(()),
                    None => {}
                }
                self.run_from(0, batch, mode, store)
            }
            Work::Mark(time) => {
                self.watermark.raise(*time);
                let batch = Batch { groups: Vec::new(), order: vec![crate::contract::MARK], marks: vec![*time] };
                self.run_from(1, batch, mode, store)
            }
        }
    }

    /// All that has come of the work since the last commit, with the stages' changed state.
    ///
    /// # Errors
    /// A stage's fault, as for [`Segment::run`].
    pub fn take_outcome(&mut self) -> Result<(crate::store::Commit, Vec<Tapped>), Failure> {
        let mut state = Vec::new();
        for stage in &mut self.stages {
            let entries = stage.take_changes()?;
            if !entries.is_empty() {
                state.push((stage.name().to_owned(), entries));
            }
        }
        let (mut commit, tapped) = self.outcome.take(&self.stages, self.first, &self.names);
        if let Some(partition) = self.partition {
            let is_own = |letter: &&mut DeadLetter| self.stages.iter().any(|stage| stage.name() == letter.stage);
            commit.dead_letters.iter_mut().filter(is_own).for_each(|letter| letter.partition = Some(partition));
        }
        commit.state = state;
        commit.ran = self.stages.iter_mut().filter_map(StageWorker::note).collect();
        commit.progress.watermark = self.watermark.current();
        commit.progress.newest = self.watermark.newest();
        Ok((commit, tapped))
    }

    /// How much has come of the work since the last commit, in bytes, roughly.
    pub fn outcome_bytes(&self) -> usize {
        self.outcome.bytes()
    }

    /// Messages that go on to the next segment with the next commit.
    pub fn out_count(&self) -> usize {
        self.outcome.out_count()
    }

    /// Newest event time and present watermark, ns since the epoch.
    pub const fn times(&self) -> (i64, i64) {
        (self.watermark.newest(), self.watermark.current())
    }

    /// Lets events enter at a stage: here, or in a segment behind this one.
    fn enter(&mut self, enters: &Entrance, batch: Batch, mode: Mode, store: &dyn StateStore) -> Result<(), Failure> {
        let stage = enters.stage.as_str();
        if stage == WATERMARK_STAGE && self.first == 0 {
            let batch = self.assign_watermarks(batch);
            return self.run_from(1, batch, mode, store);
        }
        match self.stages.iter().position(|known| known.name() == stage) {
            Some(0) if self.first == 0 => self.run_from(1, batch, mode, store),
            Some(index) => self.run_from(index, batch, mode, store),
            None if !self.is_last => {
                self.outcome.give_out(Some(enters), std::iter::once(batch));
                Ok(())
            }
            None => {
                let reason = format!("no stage {stage:?} in this pipeline");
                for element in batch::elements(&batch) {
                    let Element::Event { group, at } = element else { continue };
                    let group = &batch.groups[group];
                    let line = batch::to_line(group, at, &self.names).into_bytes();
                    self.refuse(stage.to_owned(), line, group.received_at(at), reason.clone());
                }
                Ok(())
            }
        }
    }

    fn run_from(&mut self, first: usize, batch: Batch, mode: Mode, store: &dyn StateStore) -> Result<(), Failure> {
        let mut batches = vec![batch];
        for index in first..self.stages.len() {
            let mut next = Vec::new();
            for batch in batches {
                let stage = &mut self.stages[index];
                next.extend(stage.process(batch, mode, store, &mut self.names, &mut self.outcome)?);
            }
            batches = next;
            for batch in &batches {
                self.tap_output(index, batch);
            }
        }
        let is_something = |batch: &Batch| !(batch.groups.is_empty() && batch.marks.is_empty());
        self.outcome.give_out(None, batches.into_iter().filter(is_something));
        Ok(())
    }

    fn tap_output(&mut self, stage: usize, batch: &Batch) {
        self.outcome.tap(self.stages[stage].name(), batch, &self.names);
    }

    fn assign_watermarks(&mut self, batch: Batch) -> Batch {
        let assigned = self.watermark.assign(batch);
        let index = self.stages.len();
        self.outcome.tally.pass(index, &assigned.batch);
        for early in assigned.early {
            let (group, at, reason) = (&early.group, 0, early.reason);
            self.outcome.tally.refuse(index, Some(group.symbol[at]), Some(group.time[at]));
            let letter = DeadLetter {
                id: 0,
                aside: Aside::Dead,
                stage: WATERMARK_STAGE.to_owned(),
                component: String::new(),
                symbol: self.names.text(tapeline_events::Name(group.symbol[at])).to_owned(),
                time: Some(group.time[at]),
                reason,
                origin: self.outcome.origin.whole(),
                format: "events".to_owned(),
                received: group.received_at(at),
                payload: batch::to_line(group, at, &self.names).into_bytes(),
                partition: None,
                is_redriven: false,
            };
            self.outcome.dead_letters.push(letter);
        }
        assigned.batch
    }

    /// Puts a record aside that could not even enter its stage.
    fn refuse(&mut self, stage: String, payload: Vec<u8>, received: Option<i64>, reason: String) {
        self.outcome.dead_letters.push(DeadLetter {
            id: 0,
            aside: Aside::Dead,
            stage,
            component: String::new(),
            symbol: String::new(),
            time: None,
            reason: short(reason),
            origin: self.outcome.origin.whole(),
            format: "events".to_owned(),
            received,
            payload,
            partition: None,
            is_redriven: false,
        });
    }
}

/// Bytes of a reason: whoever wants to tell more does so in a log.
const REASON_BYTES_MAX: usize = 4 << 10;

/// A reason as it is kept.
fn short(mut reason: String) -> String {
    if reason.len() > REASON_BYTES_MAX {
        let end = (0..=REASON_BYTES_MAX).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
        reason.truncate(end);
        reason.push_str("...");
    }
    reason
}

/// Whether the stages can be chained: a fetcher first, a writer last, stages between them.
///
/// # Errors
/// `Invalid`, with the stage that is in the wrong place.
pub fn check_chain(blueprints: &[Box<dyn Blueprint>]) -> Result<()> {
    let roles: Vec<Role> = blueprints.iter().map(|blueprint| blueprint.role()).collect();
    let last = roles.len().saturating_sub(1);
    for (at, role) in roles.iter().enumerate() {
        let wanted = match at {
            0 => Role::Fetcher,
            at if at == last => Role::Writer,
            _ => Role::Stage,
        };
        if *role != wanted {
            let name = blueprints[at].name();
            let message = format!(
                "chain the stages: {name} is stage {} of {} and must be a component of world {wanted}, not {role}",
                at + 1,
                roles.len()
            );
            return Err(Error::invalid(message));
        }
    }
    if roles.len() < 2 {
        return Err(Error::invalid("chain the stages: a pipeline has at least a fetcher and a writer"));
    }
    Ok(())
}
