//! Why an alarm is there: the raw record, the event, the state, and whether the same comes out once more.

use serde_json::value::RawValue;
use tapeline_events::Kind as EventKind;

use super::{
    Recorded, Used, Wrapped,
    alarm_row::{AlarmRow, find_row, json},
    memory::MemoryState,
    raw::{self, Piece, Place, RawInput},
    sink::Sink,
    standby::Standby,
    versions::{Cast, Change, Versions},
    watch::{Lookout, Sighting, Values, Wanted},
    window::Window,
    witness::{self, State},
};
use crate::{
    contract::{END, Entry, Frames, KindSet},
    error::{Error, Kind, Result},
    pipeline::{Worker, worker::Step},
    runtime::Fault,
    segment::{Blueprint, Origin, Role, Work},
    store::StateStore as _,
};

/// What can make a replay differ from what is stored even though the components are the same.
const SEVERAL_JOBS: &str = "all jobs of a data folder are replayed as one: where one ended before the alarm, stages closed their windows then, and do not now";

/// Why an alarm is there.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Explanation {
    /// The row as it is stored: columns and values, as a JSON line.
    pub row: Box<RawValue>,
    /// The raw record that made it.
    pub raw: RawRecord,
    /// The stage that gave it.
    pub stage: String,
    /// What that stage was given, as a JSON line: an event, or the watermark.
    pub event: Box<RawValue>,
    /// The state of that stage, just before: the entries of what the event touched.
    pub state: Vec<State>,
    /// The watermark that the stage had been told before, RFC 3339.
    pub watermark: Option<String>,
    /// What ran as each stage.
    pub stages: Vec<Used>,
    /// What could not be as it was then, for people.
    pub notes: Vec<String>,
    /// The alarm that a fresh instance gives for the same event and state, as a JSON line.
    pub again: Option<Box<RawValue>>,
    /// In what it differs from the row or from the replay, for people.
    pub differences: Vec<String>,
    /// Whether the same alarm came out, in all fields.
    pub is_same: bool,
}

/// A raw record.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RawRecord {
    /// Where it is: `journal record 17`, or `FILE, byte 8127`.
    pub place: String,
    /// How to read it.
    pub format: String,
    /// The record.
    pub text: String,
}

impl Recorded {
    /// Finds an alarm in a replay of all that was stored, with the components that ran then, and says what made it.
    ///
    /// # Errors
    /// `NotFound` when no such alarm is stored, and `Invalid` when several are; `Conflict` when the replay does not give
    /// it; otherwise as [`Recorded::replay`].
    pub fn explain(&self, wanted: &Wanted) -> Result<Explanation> {
        let reader = self.reader()?;
        let row = find_row(&reader, wanted, &self.data)?;
        let wanted = Wanted { trade_id: row.text("trade_id"), ..wanted.clone() };
        let raw = RawInput::of(self.reader()?, Window::default())?;
        let values = row.values();
        let versions = self.versions(&reader);
        let search = |values| Search::new(self, &versions, &raw, Lookout::new(wanted.clone(), values))?.run();
        // One that says the same is looked for first. When there is none, the first of that time and trade is explained.
        let found = match search(Some(values.clone()))? {
            Searched::Found(found) => found,
            Searched::Missing(_) => match search(None)? {
                Searched::Found(found) => found,
                Searched::Missing(notes) => return Err(not_given(&wanted, &notes)),
            },
        };
        found.explain(&row, &values)
    }
}

fn not_given(wanted: &Wanted, notes: &[String]) -> Error {
    let symbol = &wanted.symbol;
    let mut message = format!(
        "find the alarm of {symbol} in a replay: the stored raw input does not give it with these components, as when what ran then is not kept, or when several jobs, which are replayed as one, ended between"
    );
    for note in notes {
        message.extend(["; ", note]);
    }
    Error::new(Kind::Conflict, message)
}

/// A replay that ends with the alarm.
struct Search<'a> {
    recorded: &'a Recorded,
    versions: &'a Versions<'a>,
    raw: &'a RawInput,
    lookout: Lookout,
    cast: Cast,
    changes: Vec<Change>,
    notes: Vec<String>,
    /// What comes back later.
    standbys: Vec<Standby<'a>>,
}

/// What came of a search.
enum Searched {
    Found(Box<Found>),
    /// With what could not be as it was then, for people.
    Missing(Vec<String>),
}

/// The alarm, and how it came to be there.
struct Found {
    cast: Cast,
    notes: Vec<String>,
    sighting: Sighting,
    lookout: Lookout,
    raw: RawRecord,
}

impl<'a> Search<'a> {
    fn new(recorded: &'a Recorded, versions: &'a Versions<'a>, raw: &'a RawInput, lookout: Lookout) -> Result<Self> {
        let (cast, changes, notes) = versions.history(raw)?;
        Ok(Self { recorded, versions, raw, lookout, cast, changes, notes, standbys: Vec::new() })
    }

    /// Goes through the past until the alarm is seen, swapping stages where they were swapped then.
    fn run(mut self) -> Result<Searched> {
        let cuts: Vec<Place> = self.changes.iter().map(|change| change.place).collect();
        let mut changes = std::mem::take(&mut self.changes).into_iter().peekable();
        let mut worker = self.worker(&self.lookout, MemoryState::default())?;
        let end = std::iter::once(Ok(raw::end()));
        for piece in self.raw.pieces(&cuts).chain(end) {
            let Piece { place, work } = piece?;
            if changes.peek().is_some_and(|change| change.place <= place) {
                let mut store = worker.into_store();
                while let Some(change) = changes.next_if(|change| change.place <= place) {
                    self.swap(&change, &mut store)?;
                }
                worker = self.worker(&self.lookout, store)?;
            }
            for standby in &mut self.standbys {
                standby.take(&work);
            }
            worker.take(work.clone(), Step::None)?;
            if self.lookout.has_seen() {
                // A stage that failed was given the same work again, and that is committed.
                let is_committed = !worker.has_uncommitted();
                let mut store = worker.into_store();
                if is_committed {
                    store.undo();
                }
                return Ok(Searched::Found(Box::new(self.close_in(store, work)?)));
            }
            worker.commit()?;
        }
        Ok(Searched::Missing(self.notes))
    }

    /// Lets a stage be what it became, with the state that it went on with.
    fn swap(&mut self, change: &Change, store: &mut MemoryState) -> Result<()> {
        let Change { number, stage_index, ran, comes_back, stands_by_until, .. } = change;
        if let Some(until) = *stands_by_until {
            let standby = Standby::new(self.recorded, until, *stage_index, self.cast.clone(), store.clone())?;
            self.standbys.push(standby);
        }
        self.notes.extend(self.versions.apply(&mut self.cast, change)?);
        let (stage, digest) = (&ran.stage, &ran.digest);
        if *comes_back {
            let standby = self.standbys.iter().position(|standby| standby.is_until(*number));
            let own = standby.map(|at| self.standbys.remove(at).state(stage)).transpose()?.flatten();
            if let Some(own) = own {
                store.put_state(stage, own);
            }
            if ran.has_own_state.is_none() {
                self.notes.push(format!(
                    "stage {stage}: that sha256:{digest} went on with its own state when it came back is not noted, only likely"
                ));
            }
        }
        let state = store.state(stage)?;
        let state = match self.refusal(*stage_index, &state, store.progress()?.watermark) {
            None => state,
            Some(fault) => {
                self.notes.push(format!(
                    "stage {stage}: the step to sha256:{digest} cannot be repeated, it begins without state: {fault}"
                ));
                store.put_state(stage, Vec::new());
                Vec::new()
            }
        };
        for standby in &mut self.standbys {
            standby.follow(&self.cast, *stage_index, stage, state.clone())?;
        }
        Ok(())
    }

    /// Why a stage does not take a state; none when it does.
    fn refusal(&self, stage_index: usize, state: &[Entry], watermark: i64) -> Option<Fault> {
        // The first stage and the writer keep none.
        let stage = self.cast.stages.get(stage_index).filter(|stage| stage.role() == Role::Stage)?;
        stage.instantiate().and_then(|mut instance| instance.restore(state, watermark)).err()
    }

    /// Does the work that gives the alarm once more, record by record, from the state before it.
    fn close_in(self, store: MemoryState, work: Work) -> Result<Found> {
        let lookout = self.lookout.closely();
        let mut worker = self.worker(&lookout, store)?;
        for single in singles(work) {
            let raw = self.describe(&single)?;
            worker.take(single, Step::None)?;
            if let Some(sighting) = lookout.seen() {
                return Ok(Found { cast: self.cast, notes: self.notes, sighting, lookout, raw });
            }
            worker.commit()?;
        }
        let message = "find the record that made the alarm: what the stages give depends on how input is cut";
        Err(Error::new(Kind::Internal, message))
    }

    /// A worker of the stages up to the last one that gives alarms, each of which is watched.
    fn worker(&self, lookout: &Lookout, store: MemoryState) -> Result<Worker<MemoryState>> {
        let gives = |index: usize| {
            let description = self.cast.descriptions.get(index);
            description.is_some_and(|description| KindSet::from(description.gives).has(EventKind::Alarm))
        };
        let last = (0..self.cast.stages.len()).rfind(|index| gives(*index));
        let last = last.ok_or_else(|| Error::invalid("find a stage that gives alarms: the pipeline has none"))?;
        let mut stages: Vec<Box<dyn Blueprint>> = Vec::new();
        for (index, stage) in self.cast.stages.iter().enumerate().take(last + 1) {
            let stage: Box<dyn Blueprint> = Box::new(stage.clone());
            if !gives(index) {
                stages.push(stage);
                continue;
            }
            let (name, lookout) = (stage.name().to_owned(), lookout.clone());
            stages.push(Box::new(Wrapped::new(stage, move |inner| Box::new(lookout.watch(&name, inner)))));
        }
        stages.push(Box::new(Sink));
        self.recorded.worker(stages, store)
    }

    /// Where a single record is, and what it says.
    fn describe(&self, work: &Work) -> Result<RawRecord> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(match work {
            Work::Frames { frames, origin } => {
                RawRecord { place: self.place(origin), format: frames.format.clone(), text: text(&frames.bytes) }
            }
            Work::Lines { bytes, origin, enters, .. } => {
                let place = format!("{}, entering at stage {enters}", self.place(origin));
                RawRecord { place, format: "events".to_owned(), text: text(bytes) }
            }
            Work::Mark(mark) if *mark == END => {
                RawRecord { place: "the end of all input".to_owned(), ..RawRecord::default() }
            }
            Work::Mark(mark) => {
                let time = tapeline_events::format_time(*mark, tapeline_events::Unit::Nanoseconds);
                RawRecord { place: "a watermark in the journal".to_owned(), format: String::new(), text: time }
            }
            Work::Unreadable { .. } | Work::Carried { .. } => RawRecord::default(),
        })
    }

    fn place(&self, origin: &Origin) -> String {
        let at = origin.positions.first().copied().unwrap_or_default();
        match origin.source.strip_prefix("sha256:") {
            None => format!("{} record {at}", origin.source),
            Some(digest) => {
                let path = self.raw.file_of(digest).map_or(origin.source.as_str(), |file| &file.path);
                format!("{path}, byte {at}")
            }
        }
    }
}

/// Work in pieces of one record.
fn singles(work: Work) -> Vec<Work> {
    let one = |origin: &Origin, at: usize| Origin {
        source: origin.source.clone(),
        positions: origin.positions.get(at).copied().into_iter().collect(),
    };
    match work {
        Work::Frames { frames, origin } => {
            let mut start = 0;
            let mut singles = Vec::with_capacity(frames.ends.len());
            for (at, end) in frames.ends.iter().enumerate() {
                let bytes = frames.bytes.get(start..*end as usize).unwrap_or_default().to_vec();
                start = *end as usize;
                let frames = Frames {
                    names: Vec::new(),
                    format: frames.format.clone(),
                    received: frames.received.get(at).copied().into_iter().collect(),
                    ends: vec![bytes.len() as u32],
                    bytes,
                };
                singles.push(Work::Frames { frames, origin: one(&origin, at) });
            }
            singles
        }
        Work::Lines { enters, bytes, received, origin } => {
            let lines = bytes.split(|byte| *byte == b'\n').enumerate();
            let line = |(at, line): (usize, &[u8])| Work::Lines {
                enters: enters.clone(),
                bytes: line.to_vec(),
                received,
                origin: one(&origin, at),
            };
            lines.map(line).collect()
        }
        other => vec![other],
    }
}

impl Found {
    fn explain(mut self, row: &AlarmRow, values: &Values) -> Result<Explanation> {
        let stage = self.cast.stages.iter().find(|stage| stage.name() == self.sighting.stage);
        let stage = stage.ok_or_else(|| Error::new(Kind::Internal, "find the stage that gave the alarm"))?;
        let said = witness::hear(stage, &self.sighting, &self.lookout)?;
        let mut differences = values.differences(&said.alarm.1);
        if !differences.is_empty() {
            self.notes.push(SEVERAL_JOBS.to_owned());
        }
        match &said.again {
            None => differences.push("a fresh instance gives no such alarm".to_owned()),
            Some(again) if *again != said.alarm => {
                differences.push(format!("a fresh instance gives {} instead of {}", again.0, said.alarm.0));
            }
            Some(_) => {}
        }
        Ok(Explanation {
            row: row.line()?,
            raw: self.raw,
            stage: self.sighting.stage,
            event: json(said.event)?,
            state: said.state,
            watermark: said.watermark,
            stages: self.cast.used,
            notes: self.notes,
            again: said.again.map(|(line, _)| json(line)).transpose()?,
            is_same: differences.is_empty(),
            differences,
        })
    }
}
