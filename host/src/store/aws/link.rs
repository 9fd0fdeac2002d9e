//! The process with AWS' clients, and what is said to it.

use std::{
    collections::HashMap,
    io::BufReader,
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tapeline_aws_protocol::{
    Answer, Answered, Asked, Hello, Request, VERSION,
    frame::{self, FrameError},
};

use super::{AwsSettings, unexpected};
use crate::error::{Context as _, Error, Kind, Result};

/// A process that has not answered by then hangs, and is ended. A request is many of AWS', each with a limit of its own.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(300);
/// It finds its stack in less.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// How often it is looked whether it hangs.
const LOOK: Duration = Duration::from_millis(500);
/// What is under way when the host ends is done within this time.
const END_TIME_MAX: Duration = Duration::from_secs(10);
const END_LOOK: Duration = Duration::from_millis(5);

/// The process. It ends with this.
pub(super) struct Link {
    process: Arc<Mutex<Child>>,
    to: Mutex<Option<ChildStdin>>,
    shared: Arc<Waiting>,
    next: AtomicU64,
    hears: Option<JoinHandle<()>>,
}

/// Who waits for answers, and since when; also for being heard at all.
#[derive(Default)]
struct Waiting {
    by_id: Mutex<HashMap<u64, (Instant, mpsc::SyncSender<Answer>)>>,
    is_over: AtomicBool,
}

impl Waiting {
    fn by_id(&self) -> MutexGuard<'_, HashMap<u64, (Instant, mpsc::SyncSender<Answer>)>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    fn has_waited(&self, time: Duration) -> bool {
        self.by_id().values().any(|(since, _)| since.elapsed() > time)
    }
}

impl Link {
    /// Starts one, and waits until it has found its stack.
    pub(super) fn start(settings: &AwsSettings) -> Result<Self> {
        let AwsSettings { program, stack, pipeline, stages, partitions, environment } = settings;
        let place = || format!("start {}", program.display());
        let mut command = Command::new(program);
        for (name, value) in environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let mut process = command
            .args(["store", stack, "--pipeline", pipeline, "--stages", &stages.join(",")])
            .args(["--partitions", &partitions.to_string()])
            // A Ctrl-C is for the host, which has something to commit then.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .doing(place)?;
        let (to, from) = (process.stdin.take(), process.stdout.take().map(BufReader::new));
        let mut link = Self {
            process: Arc::new(Mutex::new(process)),
            to: Mutex::new(to),
            shared: Arc::default(),
            next: AtomicU64::new(1),
            hears: None,
        };
        let from = from.ok_or_else(|| Error::new(Kind::Internal, format!("{}: it has no output", place())))?;
        let waiting = Arc::clone(&link.shared);
        let (say, said) = mpsc::sync_channel(1);
        link.hears = Some(thread::spawn(move || hear(from, &say, &waiting)));
        let (process, waiting) = (Arc::clone(&link.process), Arc::clone(&link.shared));
        thread::spawn(move || watch(&process, &waiting));
        let silent = |_| Error::new(Kind::Unavailable, format!("{}: it says nothing in {START_TIME_MAX:?}", place()));
        let hello = said.recv_timeout(START_TIME_MAX).map_err(silent).inspect_err(|_| link.kill())?;
        match hello.map_err(|error| Error::caused(Kind::Unavailable, place(), error))? {
            Some(Hello { version: VERSION, refused: None }) => {}
            Some(Hello { version: VERSION, refused: Some(refusal) }) => {
                return Err(unexpected(&Answer::Refused(refusal)));
            }
            Some(Hello { version, .. }) => {
                let message =
                    format!("{}: it speaks version {version}, this program {VERSION}: build both anew", place());
                return Err(Error::invalid(message));
            }
            None => return Err(Error::new(Kind::Unavailable, format!("{}: it has ended", place()))),
        }
        Ok(link)
    }

    /// Whether it answers still.
    pub(super) fn is_up(&self) -> bool {
        !self.shared.is_over()
    }

    /// A number of one's own to ask under.
    pub(super) fn session(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks it in a session, and waits for the answer.
    pub(super) fn ask(&self, (session, partition): (u64, u32), request: Request) -> Result<Answer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (give, given) = mpsc::sync_channel(1);
        self.shared.by_id().insert(id, (Instant::now(), give));
        let said = match self.to.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            // Once it is over, nobody takes those who wait out of the list.
            Some(to) if self.is_up() => {
                frame::write(to, &Asked { id, session, partition, request }).map_err(|error| error.to_string())
            }
            _ => Err("its process has ended".to_owned()),
        };
        let answer = said.and_then(|()| given.recv().map_err(|_| "its process has ended".to_owned()));
        answer.map_err(|reason| {
            self.shared.by_id().remove(&id);
            self.kill();
            Error::new(Kind::Unavailable, format!("use the store on AWS: {reason}"))
        })
    }

    /// Lets it end at once. Who waits is told so, and a new one can be started.
    fn kill(&self) {
        end(&self.process, &self.shared);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // It ends when it has nobody to listen to.
        *self.to.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.shared.is_over.store(true, Ordering::Release);
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + END_TIME_MAX;
        while matches!(process.try_wait(), Ok(None)) && Instant::now() < until {
            thread::sleep(END_LOOK);
        }
        let _ = process.kill();
        let _ = process.wait();
        drop(process);
        if let Some(hears) = self.hears.take() {
            let _ = hears.join();
        }
    }
}

/// Lets the process end at once, and asks it nothing more.
fn end(process: &Mutex<Child>, waiting: &Waiting) {
    waiting.is_over.store(true, Ordering::Release);
    // One that has ended is what is wanted.
    let _ = process.lock().unwrap_or_else(PoisonError::into_inner).kill();
}

/// Ends a process that hangs: whoever waits to be heard or answered waits no longer then.
fn watch(process: &Mutex<Child>, waiting: &Waiting) {
    while !waiting.is_over() {
        if waiting.has_waited(ANSWER_TIME_MAX) {
            tracing::error!("the process of the store on AWS does not answer in {ANSWER_TIME_MAX:?}, and is ended");
            return end(process, waiting);
        }
        thread::sleep(LOOK);
    }
}

type Said = Result<Option<Hello>, FrameError>;

/// Hands out what it says first, and then answers until there are no more.
fn hear(mut from: BufReader<ChildStdout>, say: &mpsc::SyncSender<Said>, waiting: &Waiting) {
    let hello = frame::read::<Hello>(&mut from);
    // Whoever waits no longer has ended it.
    let _ = say.send(hello);
    loop {
        match frame::read::<Answered>(&mut from) {
            Ok(Some(Answered { id, answer })) => {
                // One that nobody waits for any more is nobody's.
                if let Some((_, give)) = waiting.by_id().remove(&id) {
                    let _ = give.send(answer);
                }
            }
            ended => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the process of the store on AWS says something else");
                }
                waiting.is_over.store(true, Ordering::Release);
                return waiting.by_id().clear();
            }
        }
    }
}
