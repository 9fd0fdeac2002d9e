//! Instances of a stage that are kept between calls.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    InvokeError, InvokeOptions, Invoked,
    answer::{self, Asked},
    body,
    session::{Changes, SessionState},
};
use crate::{
    batch::{self, Breach, Bypass},
    contract::{Batch, END, GROUPS_MAX, Input, KindSet, Output},
    names::{Names, Told},
    pipeline::WasmStage,
    runtime::{Fault, WasmInstance},
    segment::{Blueprint, Role},
};

/// Instances of a stage, and calls of it that are under way. A call waits for nothing, so that more of them than
/// processors only let short calls pass by a long one, which yields every ten milliseconds.
const INSTANCES_MAX: usize = 8;
/// Names that an instance may know and be kept: a name costs some hundred bytes here and in the instance, and a caller
/// may send new ones all the time.
const NAMES_MAX: usize = 10_000;
/// Bytes of body and session that an instance may have taken and be kept. A new instance costs 0.3 ms, which does not
/// show beside what a larger call takes.
pub(super) const KEPT_BYTES_MAX: usize = 1 << 20;

/// The instances of a stage that are not in use.
pub(super) struct Pool {
    stage: Box<dyn Fn() -> WasmStage + Send + Sync>,
    idle: Mutex<Vec<Kept>>,
    permits: Semaphore,
}

/// An instance, with the names that it knows.
pub(super) struct Kept {
    instance: WasmInstance,
    version: u64,
    role: Role,
    names: Names,
    told: Told,
    takes: KindSet,
    /// Whether events leave anything behind in it. Marks may in any case.
    has_state: bool,
    /// Whether it is as after `restore` of nothing.
    is_blank: bool,
}

impl Pool {
    /// `stage` gives what is to be called now.
    pub(super) fn new(stage: Box<dyn Fn() -> WasmStage + Send + Sync>) -> Self {
        Self { stage, idle: Mutex::default(), permits: Semaphore::new(INSTANCES_MAX) }
    }

    /// Waits until one more call may be under way.
    pub(super) async fn permit(&self) -> SemaphorePermit<'_> {
        self.permits.acquire().await.expect("the pool never closes its semaphore")
    }

    /// An instance, kept or new.
    pub(super) async fn take(&self) -> Result<Kept, Fault> {
        let stage = (self.stage)();
        let kept = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|kept| kept.version == stage.version());
            idle.pop()
        };
        match kept {
            Some(kept) => Ok(kept),
            None => Kept::new(&stage).await,
        }
    }

    /// Keeps an instance for the next call, unless it knows too many names.
    pub(super) fn put(&self, kept: Kept) {
        if kept.names.len() <= NAMES_MAX {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        }
    }
}

impl Kept {
    async fn new(stage: &WasmStage) -> Result<Self, Fault> {
        let mut instance = stage.instantiate_async().await?;
        let description = instance.describe_async().await?;
        Ok(Self {
            instance,
            version: stage.version(),
            role: stage.role(),
            names: Names::default(),
            told: Told::default(),
            takes: description.takes.into(),
            has_state: description.state_version != 0,
            is_blank: false,
        })
    }

    /// Calls the instance with the state of a session, or without any.
    pub(super) async fn call(
        &mut self,
        records: &[&[u8]],
        options: &InvokeOptions,
        session: Option<&SessionState>,
    ) -> Result<(Invoked, Changes), InvokeError> {
        if self.role == Role::Fetcher {
            return Ok((self.decode(records, options).await?, Changes::default()));
        }
        let lines = batch::from_lines(records.iter().copied(), options.received, &mut self.names);
        let lines = lines.map_err(|(line, error)| bad_body(line + 1, error))?;
        batch::check(&lines).map_err(|error| bad_body(records.len(), error))?;
        let watermark = lines.marks.iter().copied().filter(|mark| *mark != END).max().unwrap_or(i64::MIN);
        self.restore(session, !lines.marks.is_empty()).await?;
        let known = session.map_or(i64::MIN, SessionState::watermark);
        let invoked = self.process(lines, watermark.max(known)).await?;
        let entries = if session.is_some() { self.instance.checkpoint_async().await? } else { Vec::new() };
        Ok((invoked, Changes { entries, watermark }))
    }

    /// Puts the state for the next call in. `has_marks` says whether that call will have any.
    async fn restore(&mut self, session: Option<&SessionState>, has_marks: bool) -> Result<(), Fault> {
        match session {
            Some(state) => self.instance.restore_async(state.entries(), state.watermark()).await?,
            None if self.is_blank => {}
            None => self.instance.restore_async(&[], i64::MIN).await?,
        }
        self.is_blank = session.is_none() && !has_marks && !self.has_state;
        Ok(())
    }

    async fn process(&mut self, lines: Batch, watermark: i64) -> Result<Invoked, Fault> {
        let count = batch::event_count(&lines);
        let (events, bypass) = batch::select(lines, self.takes);
        if events.groups.is_empty() && events.marks.is_empty() {
            return Ok(answer::of_untouched(&batch::rejoin(events, bypass), self.role, &self.names));
        }
        let group_count = bypass.as_ref().map_or(events.groups.len(), Bypass::group_count);
        let input = Input { names: self.told.untold(&self.names), events };
        if self.role == Role::Writer {
            let written = self.instance.write_async(&input).await?;
            let asked = Asked { events: count, watermark, names: &self.names };
            return answer::of_writer(&input.events, written, &asked).map_err(breach);
        }
        let mut output = self.instance.process_async(&input).await?;
        check(&input.events, &output, group_count).map_err(breach)?;
        self.told.coin(&output.names, &mut self.names);
        self.told.resolve_batch(&mut output.emitted).map_err(breach)?;
        let asked = Asked { events: count, watermark, names: &self.names };
        Ok(answer::of_stage(input.events, bypass, output, &asked))
    }

    async fn decode(&mut self, records: &[&[u8]], options: &InvokeOptions) -> Result<Invoked, Fault> {
        let format = options.format.as_deref().unwrap_or(body::EVENTS);
        let mut frames = body::frames(records, format, options.received);
        if frames.ends.is_empty() {
            return Ok(Invoked::default());
        }
        frames.names = self.told.untold(&self.names);
        let mut decoded = self.instance.decode_async(&frames).await?;
        batch::check(&decoded.events).map_err(breach)?;
        self.told.coin(&decoded.names, &mut self.names);
        self.told.resolve_batch(&mut decoded.events).map_err(breach)?;
        answer::of_fetcher(&frames, &decoded, &self.names).map_err(breach)
    }
}

fn check(events: &Batch, output: &Output, group_count: usize) -> Result<(), Breach> {
    batch::check_answer(events, output)?;
    let groups = group_count + output.emitted.groups.len();
    if groups > GROUPS_MAX { Err(Breach(format!("{groups} groups are too many"))) } else { Ok(()) }
}

fn breach(breach: Breach) -> Fault {
    Fault::Breach(breach.to_string())
}

fn bad_body(line: usize, error: impl std::error::Error) -> InvokeError {
    InvokeError::BadBody { line, message: error.to_string() }
}
