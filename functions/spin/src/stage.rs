//! In front of one stage.

use std::{cell::RefCell, time::SystemTime};

use futures_util::FutureExt as _;
use spin_sdk::http::{FullBody, Request, Response};
use tapeline_invoke::{
    AdminToken, Asking, CallError, Callee, Caller, Hop, NoState, Role, StateOf, admit,
    batch::Breach,
    body::records,
    contract::{Decoded, Description, Entry, Frames, Input, Output, SettingError, StateError, Written},
    problem::What,
};
use tapeline_state::{Area, Changes, Scope, SessionError};

use crate::{
    bucket::SpinBucket,
    http::{Answer, Problem, body, check_method, header, lines, variable},
    messages::{PASS_PATH, Pass, PassAnswer, Work},
};

#[cfg(feature = "fetcher")]
use tapeline_invoke::contract::decode as exported;
#[cfg(feature = "stage")]
use tapeline_invoke::contract::process as exported;
#[cfg(feature = "writer")]
use tapeline_invoke::contract::write as exported;

const ROLE: Role = if cfg!(feature = "fetcher") {
    Role::Fetcher
} else if cfg!(feature = "writer") {
    Role::Writer
} else {
    Role::Stage
};
/// How often a session's call begins again because another one was faster.
const TRIES_MAX: usize = 32;

/// Names that a stage may know and be kept: callers may send new ones all the time.
const NAMES_MAX: usize = 10_000;

thread_local! {
    /// The stage with its settings, once it has them. Lives as long as the instance.
    static CALLER: RefCell<Option<(String, Caller<Composed>)>> = const { RefCell::new(None) };
}

/// The stage that this component was composed with.
struct Composed;

/// Why a stage has no answer.
enum Fault {
    Breach(Breach),
    Stage(String),
    #[cfg_attr(feature = "fetcher", expect(dead_code, reason = "a fetcher has no state"))]
    State(tapeline_state::StateError),
}

impl From<Breach> for Fault {
    fn from(breach: Breach) -> Self {
        Self::Breach(breach)
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Breach(breach) => Self::new(What::StageFault, breach.to_string()),
            Fault::Stage(reason) => Self::new(What::StageFault, reason),
            Fault::State(error) => error.into(),
        }
    }
}

impl From<CallError<Fault>> for Problem {
    fn from(error: CallError<Fault>) -> Self {
        match error {
            CallError::BadBody(error) => Self::new(What::BadBody, error.to_string()),
            CallError::Fault(fault) => fault.into(),
        }
    }
}

/// Answers a request.
pub async fn handle(request: Request) -> Answer {
    let path = request.uri().path().to_owned();
    answer(request, &path).await.unwrap_or_else(|problem| problem.answer(&path))
}

async fn answer(request: Request, path: &str) -> Result<Answer, Problem> {
    let stage = variable("stage").await?;
    if path == PASS_PATH {
        return pass(request, &stage).await;
    }
    if path != format!("/stages/{stage}/invoke") {
        return Err(Problem::new(What::UnknownRoute, format!("there is no {path}")));
    }
    check_method(&request, |method| method == "POST")?;
    let [session, format] = admit::parameters(request.uri().query(), ["session", "format"])
        .map_err(|detail| Problem::new(What::BadParameter, detail))?;
    if session.is_some() {
        // It leaves something behind.
        check_admin(&request).await?;
    }
    let body = body(request).await?;
    let settings = variable("settings").await?;
    // No receive time: the answer depends on what was sent alone.
    let asking = Asking { format: format.as_deref(), received: None };
    let invoked = match session {
        Some(session) => invoke_in_session(&stage, &settings, &session, &body, asking)?,
        None => {
            let records = records_of(&body, asking)?;
            with_caller(&settings, |caller| {
                let called = now(caller.call(&records, asking, None::<&mut NoState>));
                called.map(|(invoked, _)| invoked).map_err(Problem::from)
            })?
        }
    };
    Ok(lines(invoked.lines, &invoked.counts))
}

/// The records of a body that a stage is called with.
fn records_of<'a>(body: &'a [u8], asking: Asking<'_>) -> Result<Vec<&'a [u8]>, Problem> {
    admit::check_record_count(body, asking.format()).map_err(|detail| Problem::new(What::BadBody, detail))?;
    Ok(records(body, asking.format()).map_err(CallError::BadBody)?)
}

fn invoke_in_session(
    stage: &str,
    settings: &str,
    session: &str,
    body: &[u8],
    asking: Asking<'_>,
) -> Result<tapeline_invoke::Invoked, Problem> {
    admit::check_session(session).map_err(|detail| Problem::new(What::BadParameter, detail))?;
    let records = records_of(body, asking)?;
    let bucket = SpinBucket::open()?;
    let scope = Scope::of_sessions(&bucket, stage);
    for _ in 0..TRIES_MAX {
        match try_in_session(&scope, session, settings, &records, asking) {
            Err(Tried::Again) => {}
            Err(Tried::Failed(problem)) => return Err(problem),
            Ok(invoked) => return Ok(invoked),
        }
    }
    Err(tapeline_state::StateError::Conflict.into())
}

enum Tried {
    Again,
    Failed(Problem),
}

impl From<Problem> for Tried {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

impl From<SessionError> for Tried {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::TooMany(detail) => Self::Failed(Problem::new(What::TooManySessions, detail)),
            SessionError::State(tapeline_state::StateError::Conflict) => Self::Again,
            SessionError::State(error) => Self::Failed(error.into()),
        }
    }
}

fn try_in_session(
    scope: &Scope<'_, SpinBucket, ()>,
    name: &str,
    settings: &str,
    records: &[&[u8]],
    asking: Asking<'_>,
) -> Result<tapeline_invoke::Invoked, Tried> {
    let called = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let session = now(scope.open(name, called))?;
    let (invoked, changes) = with_caller(settings, |caller| {
        let mut stored = Stored::new(scope, session.root(), session.area());
        let called = now(caller.call(records, asking, Some(&mut stored)));
        let (invoked, watermark) = called.map_err(|error| match error {
            CallError::Fault(Fault::State(error)) => Tried::from(SessionError::State(error)),
            error => Tried::Failed(error.into()),
        })?;
        Ok::<_, Tried>((invoked, Changes { watermark, ..stored.changes() }))
    })?;
    now(scope.close(&session, changes))?;
    Ok(invoked)
}

/// Lets those through who show the application's token.
async fn check_admin(request: &Request) -> Result<(), Problem> {
    const NAME: &str = "admin_token";
    let text = variable(NAME).await?;
    if text.is_empty() {
        let detail =
            format!("variable {NAME} of this application is not set, so that nobody can administer it by HTTP");
        return Err(Problem::new(What::AdminOff, detail));
    }
    let unfit = |found| Problem::new(What::AdminOff, format!("variable {NAME} of this application {found}"));
    let token = AdminToken::new(&text).map_err(unfit)?;
    let refused = |what| Problem::new(What::Unauthorized, format!("{what}; send `Authorization: Bearer <{NAME}>`"));
    token.check(header(request, "authorization")).map_err(refused)
}

/// The stage's part of a request to a pipeline.
async fn pass(request: Request, stage: &str) -> Result<Answer, Problem> {
    let settings = variable("settings").await?;
    let bytes = crate::http::message(request.into_body(), "what the stage is given").await?;
    let broken = |error: postcard::Error| Problem::new(What::BadBody, error.to_string());
    let Pass { scope, root, area, work } = postcard::from_bytes(&bytes).map_err(broken)?;
    if matches!(work, Work::Records { .. }) != (ROLE == Role::Fetcher) {
        let detail =
            format!("stage {stage} is a {ROLE}; in the variable \"stages\" the first is a fetcher, and no other");
        return Err(Problem::new(What::Internal, detail));
    }
    let bucket = SpinBucket::open()?;
    let scope = Scope::named(&bucket, &scope);
    let answer = with_caller(&settings, |caller| {
        let mut stored = Stored::new(&scope, root, &area);
        let passed = match work {
            Work::Records { format, received, body } => {
                let records = records(&body, &format).map_err(CallError::BadBody)?;
                now(caller.decode(&records, Asking { format: Some(&format), received: Some(received) }))?
            }
            Work::Events(hop) => {
                let events = hop.unpack(caller.names()).map_err(Fault::Breach)?;
                now(caller.pass(events, Some(&mut stored)))?
            }
        };
        let rows = passed.row_lines();
        let events = Hop::pack(passed.events, caller.names());
        let (rejects, counts) = (passed.rejects, passed.counts);
        let is_writer = ROLE == Role::Writer;
        Ok::<_, Problem>(PassAnswer { is_writer, events, rows, rejects, counts, changes: stored.changes() })
    })?;
    postcard::to_allocvec(&answer).map(octets).map_err(broken)
}

/// An answer of bytes that only the application itself is given.
fn octets(bytes: Vec<u8>) -> Answer {
    Response::new(FullBody::new(bytes.into()))
}

/// Does something with the stage, which is given its settings if it has not got just these. When it knows too many names,
/// and after an answer that cannot be, it is given them again, so that it begins anew.
fn with_caller<T, E>(settings: &str, act: impl FnOnce(&mut Caller<Composed>) -> Result<T, E>) -> Result<T, E>
where
    E: From<Problem>,
{
    CALLER.with_borrow_mut(|kept| {
        let mut caller = match kept.take() {
            Some((known, caller)) if known == settings => caller,
            _ => configured(settings)?,
        };
        let done = act(&mut caller);
        if caller.names().len() <= NAMES_MAX && !caller.is_spent() {
            *kept = Some((settings.to_owned(), caller));
        }
        done
    })
}

fn configured(settings: &str) -> Result<Caller<Composed>, Problem> {
    exported::configure(settings).map_err(|SettingError { key, value, expected }| {
        // Whoever asks need not see the settings; whoever runs the application does.
        eprintln!("setting {key}: {value} instead of {expected}");
        Problem::new(What::Internal, format!("setting {key} of this stage cannot be used: {expected}"))
    })?;
    let description: Description = exported::describe();
    Ok(Caller::new(Composed, ROLE, &description))
}

/// What a future gives that waits for nothing: the stage and the store answer at once.
fn now<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("neither a composed stage nor the store lets anybody wait")
}

/// The state of a stage as it was committed last.
struct Stored<'a> {
    scope: &'a Scope<'a, SpinBucket, ()>,
    root: u64,
    area: &'a Area,
    /// The newest mark that the stage was given: the keys whose timers it passes were loaded.
    looked: i64,
}

impl<'a> Stored<'a> {
    const fn new(scope: &'a Scope<'a, SpinBucket, ()>, root: u64, area: &'a Area) -> Self {
        Self { scope, root, area, looked: i64::MIN }
    }

    /// What the stage has changed since.
    fn changes(&self) -> Changes {
        let (looked, watermark) = (self.looked, i64::MIN);
        Changes { area: String::new(), entries: checkpoint(), looked, watermark, called: 0 }
    }
}

impl StateOf<Composed> for Stored<'_> {
    fn watermark(&self) -> i64 {
        self.area.watermark
    }

    #[cfg(not(feature = "fetcher"))]
    async fn restore(&mut self, composed: &mut Composed, input: &mut Input) -> Result<(), Fault> {
        // The end of all events wakes every key.
        self.looked = input.events.marks.iter().copied().max().unwrap_or(i64::MIN);
        let keys = exported::keys(input);
        // It knows them now.
        input.names.clear();
        let entries = self.scope.load(self.root, self.area, keys, self.looked).await.map_err(Fault::State)?;
        composed.restore(&entries, self.area.watermark).await
    }

    #[cfg(feature = "fetcher")]
    async fn restore(&mut self, _: &mut Composed, _: &mut Input) -> Result<(), Fault> {
        let _ = (self.scope, self.root);
        Ok(())
    }
}

#[cfg(not(feature = "fetcher"))]
fn checkpoint() -> Vec<Entry> {
    exported::checkpoint()
}

#[cfg(feature = "fetcher")]
fn checkpoint() -> Vec<Entry> {
    Vec::new()
}

fn other_world(function: &str) -> Fault {
    Fault::Stage(format!("no {function} in this world"))
}

impl Callee for Composed {
    type Fault = Fault;

    #[cfg(not(feature = "fetcher"))]
    async fn restore(&mut self, entries: &[Entry], watermark: i64) -> Result<(), Fault> {
        exported::restore(entries, watermark).map_err(|error| {
            Fault::Stage(match error {
                StateError::Version(version) => {
                    format!("the stage does not take its state: it cannot migrate version {version}")
                }
                StateError::Corrupt(reason) => format!("the stage does not take its state: {reason}"),
            })
        })
    }

    #[cfg(feature = "fetcher")]
    async fn restore(&mut self, _: &[Entry], _: i64) -> Result<(), Fault> {
        let _ = StateError::Version;
        Ok(())
    }

    #[cfg(feature = "stage")]
    async fn process(&mut self, input: &Input) -> Result<Output, Fault> {
        Ok(exported::process(input))
    }

    #[cfg(not(feature = "stage"))]
    async fn process(&mut self, _: &Input) -> Result<Output, Fault> {
        Err(other_world("process"))
    }

    #[cfg(feature = "fetcher")]
    async fn decode(&mut self, frames: &Frames) -> Result<Decoded, Fault> {
        Ok(exported::decode(frames))
    }

    #[cfg(not(feature = "fetcher"))]
    async fn decode(&mut self, _: &Frames) -> Result<Decoded, Fault> {
        Err(other_world("decode"))
    }

    #[cfg(feature = "writer")]
    async fn write(&mut self, input: &Input) -> Result<Written, Fault> {
        Ok(exported::write(input))
    }

    #[cfg(not(feature = "writer"))]
    async fn write(&mut self, _: &Input) -> Result<Written, Fault> {
        Err(other_world("write"))
    }
}
