//! Brings a new version to where the live one is, beside the live one's work, so that taking over costs a moment.
//!
//! The instance is made on a thread of its own. At a commit boundary it is given the state of that commit, and from then
//! on all that the live version is given. Since a stage depends on nothing else, it is where the live version is once it
//! has worked that off. Nobody sees what it answers meanwhile.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError, TryRecvError},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    Role,
    blueprint::Blueprint,
    companion::{Key, key_of},
    running::Running,
};
use crate::{
    batch,
    contract::{Batch, Entry, Input},
    error::{Error, Kind},
    names::{Names, Told},
    runtime::Fault,
    store::{Snapshot, StateStore},
};

/// Events that may be left to work off when it takes over: a millisecond or two.
const BEHIND_MAX: u64 = 512;
/// Bytes of input that may wait for it. The live version waits then.
const WAITING_BYTES_MAX: u64 = 64 << 20;
/// Names that it may coin meanwhile, those included that the live version has coined: as many symbols.
const NAMES_MAX: usize = 1_000_000;
/// Pause of a live version that waits.
const WAIT: Duration = Duration::from_millis(1);

/// A version that is being brought to where the live one is.
pub(super) struct WarmUp {
    blueprint: Arc<dyn Blueprint>,
    is_shadow: bool,
    phase: Phase,
}

enum Phase {
    Starting(mpsc::Receiver<Result<Running, Fault>>),
    CatchingUp(Box<CatchingUp>),
}

struct CatchingUp {
    feed: mpsc::Sender<Input>,
    done: mpsc::Receiver<Result<CaughtUp, Failed>>,
    /// The instance's, which works elsewhere.
    told: Told,
    takes: crate::contract::KindSet,
    given_events: u64,
    given_bytes: u64,
    progress: Arc<Progress>,
    /// What has changed of the live version's state since.
    changes: BTreeMap<Key, Entry>,
    /// How long the live version waits for it.
    patience: Duration,
    is_given_up: bool,
}

#[derive(Default)]
struct Progress {
    is_restored: AtomicBool,
    events: AtomicU64,
    bytes: AtomicU64,
}

struct CaughtUp {
    running: Running,
    entries: BTreeMap<Key, Entry>,
    /// The names that it coined, call by call.
    coined: Vec<Vec<String>>,
}

enum Failed {
    Stage(Fault),
    /// The state could not be read; it may be tried again.
    Store(Error),
}

/// How far it is.
pub(super) enum Step {
    /// It takes more time.
    Wait,
    /// It cannot be done now.
    TryAgain(Error),
    /// It cannot be done.
    Failed(Fault),
    /// It is where the live version is.
    Ready(Box<Ready>),
}

/// A version that is where the live one is.
pub(super) struct Ready {
    pub(super) running: Running,
    /// The live version's state as of the commit that it started from.
    pub(super) started_from: BTreeMap<Key, Entry>,
    /// What has changed of it until the last commit.
    pub(super) changes: BTreeMap<Key, Entry>,
}

impl WarmUp {
    pub(super) fn start(blueprint: Arc<dyn Blueprint>, is_shadow: bool) -> Self {
        let (answer, started) = mpsc::channel();
        let made = Arc::clone(&blueprint);
        thread::spawn(move || {
            // Nobody waits any more when another version is wanted meanwhile.
            let _ = answer.send(Running::new(made));
        });
        Self { blueprint, is_shadow, phase: Phase::Starting(started) }
    }

    pub(super) fn is_of(&self, version: u64, is_shadow: bool) -> bool {
        self.blueprint.version() == version && self.is_shadow == is_shadow
    }

    /// Gives it what the live version was given.
    pub(super) fn feed(&mut self, batch: Batch, names: &Names) {
        let Phase::CatchingUp(catching_up) = &mut self.phase else { return };
        catching_up.feed(batch, names);
    }

    /// Takes note of a commit of the live version's.
    pub(super) fn committed<'a>(&mut self, changes: impl IntoIterator<Item = &'a Entry>) {
        if let Phase::CatchingUp(catching_up) = &mut self.phase {
            catching_up.changes.extend(changes.into_iter().map(|entry| (key_of(entry), entry.clone())));
        }
    }

    /// Goes on, at a commit boundary.
    pub(super) fn step(&mut self, stage: &str, watermark: i64, store: &dyn StateStore, names: &mut Names) -> Step {
        match &mut self.phase {
            Phase::Starting(started) => {
                let mut running = match started.try_recv() {
                    Err(TryRecvError::Empty) => return Step::Wait,
                    Err(TryRecvError::Disconnected) => return Step::Failed(panicked()),
                    Ok(Err(fault)) => return Step::Failed(fault),
                    Ok(Ok(running)) => running,
                };
                if running.blueprint.role() == Role::Fetcher {
                    running.put_on_trial();
                    return Step::Ready(Box::new(Ready::without_state(running)));
                }
                let snapshot = match store.snapshot(stage) {
                    Ok(snapshot) => snapshot,
                    Err(error) => return Step::TryAgain(error),
                };
                self.phase = Phase::CatchingUp(Box::new(CatchingUp::start(running, snapshot, watermark)));
                Step::Wait
            }
            Phase::CatchingUp(catching_up) if !catching_up.is_near() => Step::Wait,
            Phase::CatchingUp(_) => {
                let gone = Phase::Starting(mpsc::channel().1);
                let Phase::CatchingUp(catching_up) = std::mem::replace(&mut self.phase, gone) else {
                    return Step::Wait;
                };
                catching_up.finish(names)
            }
        }
    }
}

impl CatchingUp {
    fn start(running: Running, snapshot: Snapshot, watermark: i64) -> Self {
        let (feed, given) = mpsc::channel();
        let (answer, done) = mpsc::channel();
        let progress = Arc::new(Progress::default());
        let (takes, noted) = (running.takes, Arc::clone(&progress));
        let patience = running.blueprint.call_time_max();
        thread::spawn(move || {
            let _ = answer.send(catch_up(running, snapshot, watermark, &given, &noted));
        });
        let (told, changes) = (Told::default(), BTreeMap::new());
        let is_given_up = false;
        Self { feed, done, told, takes, given_events: 0, given_bytes: 0, progress, changes, patience, is_given_up }
    }

    fn feed(&mut self, batch: Batch, names: &Names) {
        if self.is_given_up {
            return;
        }
        let (events, _) = batch::select(batch, self.takes);
        if events.groups.is_empty() && events.marks.is_empty() {
            return;
        }
        self.given_events += batch::event_count(&events) as u64;
        self.given_bytes += batch::byte_count(&events) as u64;
        let input = Input { names: self.told.untold(names), events };
        // When it has failed, the next step finds out.
        let _ = self.feed.send(input);
        let waiting = || self.given_bytes.saturating_sub(self.progress.bytes.load(Ordering::Acquire));
        let began = Instant::now();
        while waiting() > WAITING_BYTES_MAX {
            if began.elapsed() > self.patience {
                // It is too slow for this input; the next step says so.
                self.is_given_up = true;
                return;
            }
            thread::sleep(WAIT);
        }
    }

    /// Whether it has failed, or what is left to work off is little.
    fn is_near(&self) -> bool {
        let behind = self.given_events.saturating_sub(self.progress.events.load(Ordering::Acquire));
        self.is_given_up || (self.progress.is_restored.load(Ordering::Acquire) && behind <= BEHIND_MAX)
    }

    fn finish(self, names: &mut Names) -> Step {
        let Self { feed, done, told, changes, patience, is_given_up, .. } = self;
        drop(feed);
        if is_given_up {
            return Step::Failed(too_slow(patience));
        }
        let CaughtUp { mut running, entries: started_from, coined } = match done.recv_timeout(patience) {
            Err(RecvTimeoutError::Timeout) => return Step::Failed(too_slow(patience)),
            Err(RecvTimeoutError::Disconnected) => return Step::Failed(panicked()),
            Ok(Err(Failed::Stage(fault))) => return Step::Failed(fault),
            Ok(Err(Failed::Store(error))) => return Step::TryAgain(error),
            Ok(Ok(caught_up)) => caught_up,
        };
        running.told = told;
        match coined.iter().try_for_each(|coined| running.coin(coined, names)) {
            Ok(()) => Step::Ready(Box::new(Ready { running, started_from, changes })),
            Err(fault) => Step::Failed(fault),
        }
    }
}

impl Ready {
    fn without_state(running: Running) -> Self {
        Self { running, started_from: BTreeMap::new(), changes: BTreeMap::new() }
    }
}

impl Progress {
    fn fail(&self) {
        self.events.store(u64::MAX, Ordering::Release);
        self.bytes.store(u64::MAX, Ordering::Release);
        self.is_restored.store(true, Ordering::Release);
    }
}

/// Also when this thread panics, nobody waits for it.
struct FailUnlessDone<'a>(Option<&'a Progress>);

impl Drop for FailUnlessDone<'_> {
    fn drop(&mut self) {
        if let Some(progress) = self.0 {
            progress.fail();
        }
    }
}

fn catch_up(
    mut running: Running,
    snapshot: Snapshot,
    watermark: i64,
    given: &mpsc::Receiver<Input>,
    progress: &Progress,
) -> Result<CaughtUp, Failed> {
    let mut guard = FailUnlessDone(Some(progress));
    let entries = snapshot().map_err(Failed::Store)?;
    running.instance.restore(&entries, watermark).map_err(Failed::Stage)?;
    // Here, since to sort a large state takes longer than the live version may stand still.
    let entries = entries.into_iter().map(|entry| (key_of(&entry), entry)).collect();
    running.put_on_trial();
    let mut names_left = NAMES_MAX;
    progress.is_restored.store(true, Ordering::Release);
    let is_writer = running.blueprint.role() == Role::Writer;
    let mut coined = Vec::new();
    for input in given {
        let (events, bytes) = (batch::event_count(&input.events) as u64, batch::byte_count(&input.events) as u64);
        if is_writer {
            running.instance.write(&input).map_err(Failed::Stage)?;
        } else {
            let names = running.instance.process(&input).map_err(Failed::Stage)?.names;
            let too_many = || Failed::Stage(Fault::Breach(format!("it coins more than {NAMES_MAX} names")));
            names_left = names_left.checked_sub(names.len()).ok_or_else(too_many)?;
            coined.push(names);
        }
        progress.events.fetch_add(events, Ordering::AcqRel);
        progress.bytes.fetch_add(bytes, Ordering::AcqRel);
    }
    guard.0 = None;
    Ok(CaughtUp { running, entries, coined })
}

fn too_slow(patience: Duration) -> Fault {
    Fault::Breach(format!(
        "it does not keep up with the live version, which waited for it for {}",
        humantime::format_duration(patience)
    ))
}

fn panicked() -> Fault {
    Fault::Breach(Error::new(Kind::Internal, "start: its thread panicked").to_string())
}
