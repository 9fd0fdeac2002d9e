//! One call of a stage: records or events in, its answer out, names and state looked after.

use crate::{
    Role, Tally,
    answer::{self, Asked, Invoked, NOT_WRITTEN, Passed},
    batch::{self, Breach, Bypass},
    body::{self, BadBody, EVENTS},
    contract::{Batch, Decoded, Description, END, Entry, Frames, GROUPS_MAX, Input, KindSet, Output, Written},
    names::{Names, Told},
};

/// A stage that can be called: an instance of a component, wherever it runs.
pub trait Callee: Send {
    /// Why a call did not come back.
    type Fault: From<Breach> + Send;

    /// As `restore` of the contract.
    fn restore(&mut self, entries: &[Entry], watermark: i64) -> impl Future<Output = Result<(), Self::Fault>> + Send;

    /// As `process` of the contract.
    fn process(&mut self, input: &Input) -> impl Future<Output = Result<Output, Self::Fault>> + Send;

    /// As `decode` of the contract.
    fn decode(&mut self, frames: &Frames) -> impl Future<Output = Result<Decoded, Self::Fault>> + Send;

    /// As `write` of the contract.
    fn write(&mut self, input: &Input) -> impl Future<Output = Result<Written, Self::Fault>> + Send;
}

/// The state that a call begins from.
pub trait StateOf<C: Callee>: Send {
    /// The newest watermark that the stage has been told; `i64::MIN` for none.
    fn watermark(&self) -> i64;

    /// Puts into the stage what it needs for these events. Whoever tells it their names takes them out of the input.
    fn restore(&mut self, callee: &mut C, input: &mut Input) -> impl Future<Output = Result<(), C::Fault>> + Send;
}

/// No state: the type of a call that leaves nothing behind.
#[derive(Debug)]
pub enum NoState {}

impl<C: Callee> StateOf<C> for NoState {
    fn watermark(&self) -> i64 {
        match *self {}
    }

    async fn restore(&mut self, _: &mut C, _: &mut Input) -> Result<(), C::Fault> {
        match *self {}
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError<F> {
    /// The body is no series of events. The stage was not called.
    BadBody(BadBody),
    /// The stage failed, and is of no further use.
    Fault(F),
}

impl<F> From<BadBody> for CallError<F> {
    fn from(error: BadBody) -> Self {
        Self::BadBody(error)
    }
}

/// How to read a body.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asking<'a> {
    /// How to read frames, for a fetcher: `events` when absent. Other stages take events only.
    pub format: Option<&'a str>,
    /// Receive time of records that do not say when they were received, ns since the epoch.
    pub received: Option<i64>,
}

impl<'a> Asking<'a> {
    /// The format that a body has.
    pub fn format(self) -> &'a str {
        self.format.unwrap_or(EVENTS)
    }
}

/// Calls one instance, again and again, with the names that it knows.
pub struct Caller<C> {
    callee: C,
    role: Role,
    names: Names,
    told: Told,
    takes: KindSet,
    /// Whether events leave anything behind in it. Marks may in any case.
    has_state: bool,
    /// Whether it is as after `restore` of nothing.
    is_blank: bool,
    /// Whether a call of it has failed.
    is_spent: bool,
    tally: Option<Tally>,
}

/// The number of the stage in a caller's tally.
const TALLIED: usize = 0;

impl<C: Callee> Caller<C> {
    /// Calls an instance that was configured and has not been called since.
    pub fn new(callee: C, role: Role, description: &Description) -> Self {
        Self {
            callee,
            role,
            names: Names::default(),
            told: Told::default(),
            takes: description.takes.into(),
            has_state: description.state_version != 0,
            is_blank: false,
            is_spent: false,
            tally: None,
        }
    }

    /// Begins to count by symbol and day.
    pub fn start_tally(&mut self) {
        self.tally = Some(Tally::default());
    }

    /// What was counted since [`Self::start_tally`], the stage as number 0, and counts no more.
    ///
    /// Events of kinds that the stage does not take pass by it and are counted nowhere; those that a writer does not take
    /// leave there.
    pub fn take_tally(&mut self) -> Tally {
        self.tally.take().unwrap_or_default()
    }

    /// Whether a call of it has failed, so that nobody knows what it knows.
    pub const fn is_spent(&self) -> bool {
        self.is_spent
    }

    /// The instance.
    pub const fn callee(&mut self) -> &mut C {
        &mut self.callee
    }

    /// The names that it knows or will be told.
    pub const fn names(&mut self) -> &mut Names {
        &mut self.names
    }

    /// Calls it with the records of a body, [`body::records`]. Gives its answer, and the newest watermark that it was
    /// told; `i64::MIN` for none.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &mut self,
        records: &[&[u8]],
        asking: Asking<'_>,
        state: Option<&mut impl StateOf<C>>,
    ) -> Result<(Invoked, i64), CallError<C::Fault>> {
        if self.role == Role::Fetcher {
            let passed = self.decode(records, asking).await.map_err(CallError::Fault)?;
            return Ok((passed.into_invoked(&self.names), i64::MIN));
        }
        let events = batch::from_lines(records.iter().copied(), asking.received, &mut self.names);
        let events = events.map_err(|(line, error)| bad_body(line + 1, error))?;
        batch::check(&events).map_err(|error| bad_body(records.len(), error))?;
        let watermark = events.marks.iter().copied().filter(|mark| *mark != END).max().unwrap_or(i64::MIN);
        let passed = self.pass(events, state).await.map_err(CallError::Fault)?;
        Ok((passed.into_invoked(&self.names), watermark))
    }

    /// Calls it with events whose names are this caller's.
    ///
    /// # Errors
    /// When it fails.
    pub async fn pass(&mut self, events: Batch, state: Option<&mut impl StateOf<C>>) -> Result<Passed, C::Fault> {
        let passed = self.pass_once(events, state).await;
        self.is_spent |= passed.is_err();
        passed
    }

    async fn pass_once(&mut self, events: Batch, state: Option<&mut impl StateOf<C>>) -> Result<Passed, C::Fault> {
        let count = batch::event_count(&events);
        let known = state.as_ref().map_or(i64::MIN, |state| state.watermark());
        let watermark = events.marks.iter().copied().filter(|mark| *mark != END).fold(known, i64::max);
        let (events, bypass) = batch::select(events, self.takes);
        if events.groups.is_empty() && events.marks.is_empty() {
            if state.is_some() {
                // Whoever asks it for its changes after this call must not be given those of another.
                self.restore(state, &mut Input { names: Vec::new(), events: batch::empty() }).await?;
            }
            let events = batch::rejoin(events, bypass);
            if let Some(tally) = self.tally.as_mut().filter(|_| self.role == Role::Writer) {
                tally.drop_all(TALLIED, &events.groups, NOT_WRITTEN);
            }
            return Ok(answer::of_untouched(events, self.role));
        }
        let group_count = bypass.as_ref().map_or(events.groups.len(), Bypass::group_count);
        let mut input = Input { names: self.told.untold(&self.names), events };
        self.restore(state, &mut input).await?;
        if self.role == Role::Writer {
            let Written { fates, rules, rejects, rows, appends } = self.callee.write(&input).await?;
            let output = Output { names: Vec::new(), fates, rules, rejects, emitted: batch::empty() };
            batch::check_answer(&input.events, &output)?;
            let asked = Asked { events: count, watermark, names: &self.names };
            let passed = answer::of_writer(&input.events, &output, (rows, appends), &asked)?;
            if let Some(tally) = &mut self.tally {
                tally.settle(TALLIED, &input.events, &output);
                tally.drop_all(TALLIED, bypass.iter().flat_map(Bypass::groups), NOT_WRITTEN);
            }
            return Ok(passed);
        }
        let mut output = self.callee.process(&input).await?;
        // It has coined them, whatever else is wrong.
        self.told.coin(&output.names, &mut self.names);
        check(&input.events, &output, group_count)?;
        self.told.resolve_batch(&mut output.emitted)?;
        if let Some(tally) = &mut self.tally {
            tally.settle(TALLIED, &input.events, &output);
        }
        let asked = Asked { events: count, watermark, names: &self.names };
        Ok(answer::of_stage(input.events, bypass, output, &asked))
    }

    /// Calls a fetcher with the records of a body.
    ///
    /// # Errors
    /// When it fails.
    pub async fn decode(&mut self, records: &[&[u8]], asking: Asking<'_>) -> Result<Passed, C::Fault> {
        let passed = self.decode_once(records, asking).await;
        self.is_spent |= passed.is_err();
        passed
    }

    async fn decode_once(&mut self, records: &[&[u8]], asking: Asking<'_>) -> Result<Passed, C::Fault> {
        let mut frames = body::frames(records, asking.format(), asking.received);
        if frames.ends.is_empty() {
            return Ok(Passed::default());
        }
        frames.names = self.told.untold(&self.names);
        let mut decoded = self.callee.decode(&frames).await?;
        self.told.coin(&decoded.names, &mut self.names);
        batch::check_decoded(&frames, &decoded)?;
        self.told.resolve_batch(&mut decoded.events)?;
        for dropped in &mut decoded.dropped {
            dropped.symbol = dropped.symbol.and_then(|symbol| self.told.resolve(symbol));
        }
        for reject in &mut decoded.rejects {
            reject.symbol = reject.symbol.and_then(|symbol| self.told.resolve(symbol));
        }
        if let Some(tally) = &mut self.tally {
            tally.decode(TALLIED, &frames, &decoded);
        }
        Ok(answer::of_fetcher(&frames, decoded))
    }

    async fn restore(&mut self, state: Option<&mut impl StateOf<C>>, input: &mut Input) -> Result<(), C::Fault> {
        let is_blank = state.is_none() && input.events.marks.is_empty() && !self.has_state;
        match state {
            Some(state) => state.restore(&mut self.callee, input).await?,
            None if self.is_blank => {}
            None => self.callee.restore(&[], i64::MIN).await?,
        }
        self.is_blank = is_blank;
        Ok(())
    }
}

fn check(events: &Batch, output: &Output, group_count: usize) -> Result<(), Breach> {
    batch::check_answer(events, output)?;
    let groups = group_count + output.emitted.groups.len();
    if groups > GROUPS_MAX { Err(Breach(format!("{groups} groups are too many"))) } else { Ok(()) }
}

fn bad_body(line: usize, error: impl std::error::Error) -> BadBody {
    BadBody { line, message: error.to_string() }
}
