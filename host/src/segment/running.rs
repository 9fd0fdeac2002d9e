//! An instance at work: asks it, and makes sure of what it answers.

use std::{sync::Arc, time::Duration};

use super::{Role, blueprint::Blueprint};
use crate::{
    batch::{self, Breach, Bypass},
    contract::{Append, Batch, Decoded, Entry, Frames, GROUPS_MAX, Input, KindSet, Output, Rows},
    names::{Names, Told},
    runtime::{Fault, Instance},
};

/// Part of a stage's time limit that a version on trial gets.
const TRIAL_TIME_DIVISOR: u32 = 10;
/// Names that a version on trial may coin that no other has.
pub(super) const OWN_NAMES_MAX: usize = 10_000;

/// An instance, with what it was made from and what it has been told.
pub(super) struct Running {
    pub(super) blueprint: Arc<dyn Blueprint>,
    pub(super) instance: Box<dyn Instance>,
    pub(super) told: Told,
    pub(super) takes: KindSet,
    /// Time that a call may take, also of an instance that is made anew.
    limit: Duration,
    /// Names that it may still coin that nobody else has; a live version may coin any.
    pub(super) own_names_left: Option<usize>,
}

/// What an instance was shown of a batch, and what passes by it.
pub(super) struct Shown {
    pub(super) events: Batch,
    pub(super) bypass: Option<Bypass>,
}

/// What became of a batch; it fits it, and its names are the pipeline's.
pub(super) struct Answer {
    pub(super) output: Output,
    pub(super) rows: Vec<Rows>,
    pub(super) appends: Vec<Append>,
}

impl Running {
    /// An instance without state.
    pub(super) fn new(blueprint: Arc<dyn Blueprint>) -> Result<Self, Fault> {
        let mut instance = blueprint.instantiate()?;
        let takes = instance.describe()?.takes.into();
        let limit = blueprint.call_time_max();
        Ok(Self { blueprint, instance, told: Told::default(), takes, limit, own_names_left: None })
    }

    /// Time that a call may take.
    pub(super) const fn limit(&self) -> Duration {
        self.limit
    }

    /// Limits it as long as another version waits for it: a candidate that loops holds the live one up only once, and only
    /// for so long, and it takes no more than a few names from a table that all stages share.
    pub(super) fn put_on_trial(&mut self) {
        self.limit = self.blueprint.call_time_max() / TRIAL_TIME_DIVISOR;
        self.own_names_left = Some(OWN_NAMES_MAX);
        self.instance.set_call_time_max(self.limit);
    }

    /// Lets it have all that the stage may have.
    pub(super) fn trust(&mut self) {
        self.limit = self.blueprint.call_time_max();
        self.own_names_left = None;
        self.instance.set_call_time_max(self.limit);
    }

    /// Takes the names that it has coined.
    pub(super) fn coin(&mut self, coined: &[String], names: &mut Names) -> Result<(), Fault> {
        if let Some(left) = &mut self.own_names_left {
            let own = coined.iter().filter(|text| !names.is_known(text)).count();
            *left = left.checked_sub(own).ok_or_else(|| {
                Fault::Breach(format!("it coins names that no other version does: more than {OWN_NAMES_MAX}"))
            })?;
        }
        self.told.coin(coined, names);
        Ok(())
    }

    /// Makes the instance anew, with this state.
    pub(super) fn revive(&mut self, entries: &[Entry], watermark: i64) -> Result<(), Fault> {
        let mut instance = self.blueprint.instantiate()?;
        instance.restore(entries, watermark)?;
        instance.set_call_time_max(self.limit);
        self.instance = instance;
        self.told = Told::default();
        Ok(())
    }

    /// Shows it a batch; it must be neither the fetcher nor malformed.
    pub(super) fn process(&mut self, batch: Batch, names: &mut Names) -> Result<(Shown, Answer), Fault> {
        let (events, bypass) = batch::select(batch, self.takes);
        if events.groups.is_empty() && events.marks.is_empty() {
            return Ok((Shown { events, bypass }, Answer::of(nothing())));
        }
        let group_count = bypass.as_ref().map_or(events.groups.len(), Bypass::group_count);
        let input = Input { names: self.told.untold(names), events };
        let answer = if self.blueprint.role() == Role::Writer {
            let written = self.instance.write(&input)?;
            let (fates, rules, rejects) = (written.fates, written.rules, written.rejects);
            let output = Output { fates, rules, rejects, ..nothing() };
            batch::check_answer(&input.events, &output).map_err(breach)?;
            Answer { output, rows: written.rows, appends: written.appends }
        } else {
            let mut output = self.instance.process(&input)?;
            batch::check_answer(&input.events, &output).map_err(breach)?;
            if group_count + output.emitted.groups.len() > GROUPS_MAX {
                return Err(Fault::Breach(format!("{} groups are too many", output.emitted.groups.len())));
            }
            self.coin(&output.names, names)?;
            self.told.resolve_batch(&mut output.emitted).map_err(breach)?;
            Answer::of(output)
        };
        Ok((Shown { events: input.events, bypass }, answer))
    }

    /// Shows frames to the fetcher.
    pub(super) fn decode(&mut self, frames: &mut Frames, names: &mut Names) -> Result<Decoded, Fault> {
        frames.names = self.told.untold(names);
        let mut decoded = self.instance.decode(frames)?;
        batch::check_decoded(frames, &decoded).map_err(breach)?;
        self.coin(&decoded.names, names)?;
        self.told.resolve_batch(&mut decoded.events).map_err(breach)?;
        for dropped in &mut decoded.dropped {
            dropped.symbol = dropped.symbol.and_then(|symbol| self.told.resolve(symbol));
        }
        for reject in &mut decoded.rejects {
            reject.symbol = reject.symbol.and_then(|symbol| self.told.resolve(symbol));
        }
        Ok(decoded)
    }
}

impl Answer {
    const fn of(output: Output) -> Self {
        Self { output, rows: Vec::new(), appends: Vec::new() }
    }
}

/// The answer to nothing.
fn nothing() -> Output {
    Output { names: Vec::new(), fates: Vec::new(), rules: Vec::new(), rejects: Vec::new(), emitted: batch::empty() }
}

fn breach(breach: Breach) -> Fault {
    Fault::Breach(breach.to_string())
}
