//! Watches a stage for one alarm, and notes what it was given and what it kept when it gave that alarm.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tapeline_events::{Alarm, Envelope, IdRef, Number, Row};

use super::{lexicon::Lexicon, memory};
use crate::{
    batch,
    contract::{Batch, Decoded, Description, END, Entry, Frames, Input, Output, Written},
    runtime::{Fault, Instance},
};

/// The alarm that is looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Symbol.
    pub symbol: String,
    /// Window, ns.
    pub window: u64,
    /// Event time, ns since the epoch.
    pub time: i64,
    /// Id of its trade, as text; absent when any will do.
    pub trade_id: Option<String>,
}

/// What is told of an alarm beside its key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Values(pub(super) BTreeMap<String, f64>);

/// What a stage was given when it gave the alarm, and what it had in mind.
#[derive(Clone)]
pub(super) struct Sighting {
    /// The stage.
    pub(super) stage: String,
    /// Its state before the events. Empty unless it was looked at closely.
    pub(super) entries: Vec<Entry>,
    /// Its watermark before the events.
    pub(super) watermark: i64,
    /// The events, with all names that the instance had been told.
    pub(super) input: Input,
}

/// What several stages are watched for.
#[derive(Clone)]
pub(super) struct Lookout {
    wanted: Arc<Wanted>,
    /// What its row says, when only an alarm that says the same will do.
    values: Option<Arc<Values>>,
    seen: Arc<Mutex<Option<Sighting>>>,
    is_close: bool,
}

impl Lookout {
    /// Looks for an alarm; with `values`, for one that has them.
    pub(super) fn new(wanted: Wanted, values: Option<Values>) -> Self {
        Self { wanted: Arc::new(wanted), values: values.map(Arc::new), seen: Arc::default(), is_close: false }
    }

    /// The same, with the state before each call, which costs a checkpoint.
    pub(super) fn closely(&self) -> Self {
        Self { is_close: true, seen: Arc::default(), ..self.clone() }
    }

    /// The same, whatever the alarm says beside its key.
    pub(super) fn loosely(&self) -> Self {
        Self { values: None, ..self.clone() }
    }

    /// What has been seen.
    pub(super) fn seen(&self) -> Option<Sighting> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether something has been seen.
    pub(super) fn has_seen(&self) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Watches an instance.
    pub(super) fn watch(&self, stage: &str, inner: Box<dyn Instance>) -> Watching {
        Watching {
            inner,
            stage: stage.to_owned(),
            lookout: self.clone(),
            lexicon: Lexicon::default(),
            state: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            watermark: i64::MIN,
        }
    }

    /// Whether the alarm is among these events.
    pub(super) fn is_among<'a>(&self, events: &'a Batch, text: impl Fn(u32) -> &'a str) -> Option<(usize, usize)> {
        let groups = events.groups.iter().enumerate();
        let mut places = groups.flat_map(|(group, events)| (0..events.len()).map(move |at| (group, at)));
        places.find(|(group, at)| {
            let group = &events.groups[*group];
            group.time[*at] == self.wanted.time
                && matches!(group.columns.row(*at), Row::Alarm(alarm) if self.is_it(&group.envelope_at(*at), &alarm, &text))
        })
    }

    fn is_it<'a>(&self, event: &Envelope<'_>, alarm: &Alarm, text: &impl Fn(u32) -> &'a str) -> bool {
        let wanted = &self.wanted;
        let is_id = match (&wanted.trade_id, event.id) {
            // What has no id is stored under one that the writer made, which only it knows.
            (None, _) | (_, IdRef::Absent) => true,
            (Some(wanted), IdRef::Number(id)) => *wanted == id.to_string(),
            (Some(wanted), IdRef::Text(id)) => wanted == id,
        };
        is_id
            && alarm.window == wanted.window
            && text(event.symbol.0) == wanted.symbol
            && self.values.as_ref().is_none_or(|values| values.differences(alarm).is_empty())
    }
}

impl Values {
    /// In which columns an alarm says something else, as text.
    pub(super) fn differences(&self, alarm: &Alarm) -> Vec<String> {
        let found = [
            ("previous", alarm.previous),
            ("average", alarm.average),
            ("deviation", alarm.deviation),
            ("tolerance", alarm.tolerance),
        ];
        let stored = |name: &str| self.0.get(name).copied();
        let mut differences = Vec::new();
        for (name, found) in found {
            // Numbers that were computed are stored with 15 digits.
            let found = Number(found).rounded();
            if let Some(stored) = stored(name).map(|stored| Number(stored).rounded())
                && stored != found
            {
                differences.push(format!("{name}: {} is stored, {} came out", Number(stored), Number(found)));
            }
        }
        differences
    }
}

/// An instance that is watched.
pub(super) struct Watching {
    inner: Box<dyn Instance>,
    stage: String,
    lookout: Lookout,
    lexicon: Lexicon,
    /// What the instance keeps, as of its last checkpoint.
    state: BTreeMap<(String, u64), Entry>,
    /// Changes that its worker has not been told yet.
    unsaved: BTreeMap<(String, u64), Entry>,
    watermark: i64,
}

impl Watching {
    fn look_at_state(&mut self) -> Result<(), Fault> {
        let changes = self.inner.checkpoint()?;
        self.unsaved.extend(changes.iter().map(|entry| ((entry.key.clone(), entry.part), entry.clone())));
        memory::change(&mut self.state, changes);
        Ok(())
    }

    fn note(&self, input: &Input) {
        let sighting = Sighting {
            stage: self.stage.clone(),
            entries: self.state.values().cloned().collect(),
            watermark: self.watermark,
            input: Input { names: self.lexicon.told().to_vec(), events: input.events.clone() },
        };
        *self.lookout.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(sighting);
    }
}

impl Instance for Watching {
    fn describe(&mut self) -> Result<Description, Fault> {
        self.inner.describe()
    }

    fn restore(&mut self, entries: &[Entry], watermark: i64) -> Result<(), Fault> {
        self.watermark = watermark;
        if self.lookout.is_close {
            self.state = entries.iter().map(|entry| ((entry.key.clone(), entry.part), entry.clone())).collect();
        }
        self.inner.restore(entries, watermark)
    }

    fn checkpoint(&mut self) -> Result<Vec<Entry>, Fault> {
        if !self.lookout.is_close {
            return self.inner.checkpoint();
        }
        self.look_at_state()?;
        Ok(std::mem::take(&mut self.unsaved).into_values().collect())
    }

    fn process(&mut self, input: &Input) -> Result<Output, Fault> {
        if self.lookout.is_close {
            self.look_at_state()?;
        }
        let output = self.inner.process(input)?;
        batch::check_answer(&input.events, &output).map_err(|breach| Fault::Breach(breach.to_string()))?;
        self.lexicon.hear(&input.names);
        self.lexicon.coin(&output.names);
        let is_there = self.lookout.is_among(&output.emitted, |number| self.lexicon.text(number)).is_some();
        if is_there && !self.lookout.has_seen() {
            self.note(input);
        }
        self.watermark = watermark_behind(self.watermark, &input.events);
        Ok(output)
    }

    fn decode(&mut self, frames: &Frames) -> Result<Decoded, Fault> {
        self.inner.decode(frames)
    }

    fn write(&mut self, input: &Input) -> Result<Written, Fault> {
        self.inner.write(input)
    }

    fn set_call_time_max(&mut self, limit: Duration) {
        self.inner.set_call_time_max(limit);
    }
}

/// The watermark of a stage that has seen these events, as its worker would restore it.
pub(super) fn watermark_behind(watermark: i64, events: &Batch) -> i64 {
    events.marks.iter().copied().filter(|mark| *mark != END).fold(watermark, i64::max)
}
