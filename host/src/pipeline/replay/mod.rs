//! The past, once more: stored raw input through any versions of stages, without touching what is live.
//!
//! A data folder is only read here. [`Recorded::replay`] writes into another folder and gives the digest of what came of
//! it, [`Recorded::backtest`] and [`Recorded::explain`] keep all in memory. Everything rests on stages being pure and on
//! cut independence: the same input through the same components gives the same bytes, wherever and however it is cut.

mod alarm_row;
mod backtest;
mod digest;
mod explain;
mod fork;
mod lexicon;
mod memory;
mod raw;
mod sink;
mod standby;
#[cfg(test)]
mod testing;
mod versions;
mod watch;
mod window;
mod witness;
mod wrapped;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub use backtest::{Backtest, Counted, STEPS_MAX, Tested, Tolerances};
pub use digest::Output;
pub use explain::{Explanation, RawRecord};
use raw::RawInput;
use versions::{Cast, Versions};
pub use versions::{Choice, Taken, Used};
pub use watch::Wanted;
use window::Windowed;
pub use window::{OUTSIDE_WINDOW, Window};
pub use witness::State;
use wrapped::Wrapped;

use super::{Unobserved, Worker, commit_settings, spec::Pipeline, watermark_settings, worker::Step};
use crate::{
    error::{Context as _, Error, Result},
    runtime::Engine,
    segment::{Blueprint, NoTap, Segment},
    store::{SqliteStore, StateStore, Store as _},
};

/// A pipeline and the data folder with its past.
pub struct Recorded {
    /// The pipeline: its stages in their order, settings, limits and watermarks.
    pub pipeline: Pipeline,
    /// What compiles and runs components.
    pub engine: Engine,
    /// Where components are looked up by their names; see [`Pipeline::resolve_component`].
    pub components_folder: Option<PathBuf>,
    /// The data folder. It is only read, and a pipeline may run on it.
    pub data: PathBuf,
    /// Whether a replay and a backtest give the pipeline file's settings to what ran, instead of those that it ran with.
    pub uses_file_settings: bool,
}

/// What a replay did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Replayed {
    /// What it wrote, and the digest of that.
    #[serde(flatten)]
    pub output: Output,
    /// The event times that it was about.
    pub window: Window,
    /// Records that the first stage found.
    pub records_in: u64,
    /// Those that were outside of the window.
    pub outside_window: u64,
    /// Records that are in the dead letters of the output.
    pub dead: u64,
    /// Journal records that were read: from 1 up to this one.
    pub journal_records: u64,
    /// Files that were read, in order.
    pub files: Vec<ReplayedFile>,
    /// What ran, in the order of the data.
    pub stages: Vec<Used>,
}

/// A file that was read again.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ReplayedFile {
    /// Where it is.
    pub path: String,
    /// SHA-256 in hex.
    pub digest: String,
}

impl Recorded {
    /// Sends the events of a window through the pipeline, into a folder of its own, and gives the digest of the output.
    ///
    /// Stages that are in `given` run that component; the others the one that ran last, if the data folder keeps it, with
    /// the settings that it ran with, and otherwise the pipeline file's. Without `out` the output goes into a temporary folder, which is removed.
    ///
    /// # Errors
    /// `Invalid` when `out` is not empty, or a component does not fit; `NotFound` when raw input or a component is not
    /// there any more, `Conflict` when a file is another one now; otherwise when a store or a stage fails as a whole.
    pub fn replay(&self, given: &BTreeMap<String, Choice>, window: Window, out: Option<&Path>) -> Result<Replayed> {
        let reader = SqliteStore::open_reader(&self.data)?;
        let cast = self.versions(&reader).choose(given)?;
        let raw = RawInput::of(self.reader()?, window)?;
        let temporary;
        let folder = match out {
            Some(folder) => check_empty(folder).map(|()| folder)?,
            None => {
                temporary = tempfile::Builder::new().prefix("tapeline-replay-").tempdir()?;
                temporary.path()
            }
        };
        let store = SqliteStore::open(folder)?;
        let stages = windowed(cast.blueprints(), window);
        let mut worker = self.worker(stages, store)?;
        for piece in raw.pieces(&[]) {
            worker.take(piece?.work, as_whole())?;
        }
        worker.take(raw::end().work, as_whole())?;
        worker.commit()?;
        Replayed::of(&worker.into_store(), &raw, window, cast)
    }

    fn reader(&self) -> Result<SqliteStore> {
        SqliteStore::open_reader(&self.data)
    }

    fn versions<'a>(&'a self, store: &'a SqliteStore) -> Versions<'a> {
        let Self { pipeline, engine, components_folder, uses_file_settings, .. } = self;
        let folder = components_folder.as_deref();
        Versions { engine, pipeline, folder, store, uses_file_settings: *uses_file_settings }
    }

    /// A worker of a whole chain that goes on from what a store has.
    fn worker<S: StateStore>(&self, stages: Vec<Box<dyn Blueprint>>, store: S) -> Result<Worker<S>> {
        let segment = Segment::new(stages, watermark_settings(&self.pipeline), Box::new(NoTap), &store)?;
        Worker::new(segment, store, commit_settings(&self.pipeline), Box::new(Unobserved))
    }
}

/// A step of a source that need not be remembered, and behind which a commit may be made.
const fn as_whole() -> Step {
    Step::Stored(Vec::new())
}

/// The stages, with a window around the first one unless it holds everything.
fn windowed(mut stages: Vec<Box<dyn Blueprint>>, window: Window) -> Vec<Box<dyn Blueprint>> {
    if window.is_everything() || stages.is_empty() {
        return stages;
    }
    let first = stages.remove(0);
    stages.insert(0, Box::new(Wrapped::new(first, move |inner| Box::new(Windowed::new(inner, window)))));
    stages
}

/// Whether a folder can take the output of a replay: there is nothing in it.
fn check_empty(folder: &Path) -> Result<()> {
    let place = || format!("look into {}", folder.display());
    if !folder.try_exists().doing(place)? || folder.read_dir().doing(place)?.next().is_none() {
        return Ok(());
    }
    let message = format!("write a replay into {}: it is not empty; name a new folder", folder.display());
    Err(Error::invalid(message))
}

impl Replayed {
    fn of(store: &SqliteStore, raw: &RawInput, window: Window, cast: Cast) -> Result<Self> {
        let (mut records_in, mut outside_window, mut dead) = (0, 0, 0);
        for (key, counts) in store.ledger()? {
            dead += counts.dead;
            if key.stage_index == 0 {
                records_in += counts.entered;
                outside_window += counts.dropped.get(OUTSIDE_WINDOW).copied().unwrap_or_default();
            }
        }
        let file =
            |file: &crate::store::InputFile| ReplayedFile { path: file.path.clone(), digest: file.digest.clone() };
        Ok(Self {
            output: Output::of(store)?,
            window,
            records_in,
            outside_window,
            dead,
            journal_records: raw.journal_end(),
            files: raw.files().map(file).collect(),
            stages: cast.used,
        })
    }
}
