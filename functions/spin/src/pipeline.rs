//! In front of a pipeline: all its stages, one after the other, committed at once.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use spin_sdk::http::{self, FullBody, HeaderValue, Request, Response, StatusCode};
use tapeline_invoke::{
    Counts, Hop, Watermark, WatermarkSettings, admit, answer::write_dead_event, names::Names, problem::What,
};
use tapeline_state::{ANSWERS_BYTES_MAX, Changes, Known, Next, Request as Keyed, Scope, StateError};

use crate::{
    bucket::SpinBucket,
    http::{Answer, HEALTH_PATH, Problem, body, check_method, header, lines, variable},
    messages::{PASS_PATH, Pass, PassAnswer, Work},
};

/// How often a request begins again because another one was faster.
const TRIES_MAX: usize = 8;
/// By its value, a request that comes again is known.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What the manifest says of the pipeline.
struct Settings {
    name: String,
    /// In the order of the data.
    stages: Vec<String>,
    watermark: WatermarkSettings,
}

/// Answers a request.
pub async fn handle(request: Request) -> Answer {
    let path = request.uri().path().to_owned();
    answer(request, &path).await.unwrap_or_else(|problem| problem.answer(&path))
}

async fn answer(request: Request, path: &str) -> Result<Answer, Problem> {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments.as_slice() {
        ["healthz"] => {
            debug_assert_eq!(path, HEALTH_PATH, "one name for one place");
            check_method(&request, |method| matches!(method, "GET" | "HEAD"))?;
            let mut answer = Response::new(FullBody::new(Bytes::from_static(b"ok\n")));
            answer.headers_mut().insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
            Ok(answer)
        }
        ["pipelines", name, "events"] => {
            check_method(&request, |method| method == "POST")?;
            let settings = Settings::load().await?;
            if *name != settings.name {
                return Err(Problem::new(What::UnknownPipeline, admit::unknown_pipeline(name, &settings.name)));
            }
            take(request, &settings).await
        }
        ["stages", name, "invoke"] => {
            // Those that are known have triggers of their own.
            let settings = Settings::load().await?;
            let known = settings.stages.iter().map(String::as_str);
            check_method(&request, |method| method == "POST")?;
            Err(Problem::new(What::UnknownStage, admit::unknown_stage(name, known)))
        }
        _ => Err(Problem::new(What::UnknownRoute, format!("there is no {path}"))),
    }
}

async fn take(request: Request, settings: &Settings) -> Result<Answer, Problem> {
    let parameter = |detail| Problem::new(What::BadParameter, detail);
    let [format] = admit::parameters(request.uri().query(), ["format"]).map_err(parameter)?;
    let format = admit::format_or_events(format).map_err(parameter)?;
    let key = header(&request, IDEMPOTENCY_KEY).map(str::to_owned);
    key.as_deref().map_or(Ok(()), admit::check_idempotency_key).map_err(parameter)?;
    let body = body(request).await?;
    admit::entering(&body, &format).map_err(|detail| Problem::new(What::BadBody, detail))?;
    let received = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let received = i64::try_from(received.as_nanos()).unwrap_or(i64::MAX);
    let keyed = key.as_deref().map(|key| Keyed { key, parameters: &format, body: &body });
    let bucket = SpinBucket::open()?;
    let scope = Scope::of_pipeline(&bucket, &settings.name);
    for _ in 0..TRIES_MAX {
        let work = Work::Records { format: format.clone(), received, body: body.to_vec() };
        match run(&scope, settings, work, keyed).await {
            Ok(answer) => return Ok(answer),
            Err(Stopped::Conflict) => {}
            Err(Stopped::Problem(problem)) => return Err(problem),
        }
    }
    Err(StateError::Conflict.into())
}

/// How far the events have come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Times {
    /// The newest event time; `i64::MIN` before the first.
    newest: i64,
    /// The watermark; `i64::MIN` before the first.
    watermark: i64,
}

impl Default for Times {
    fn default() -> Self {
        Self { newest: i64::MIN, watermark: i64::MIN }
    }
}

/// Why a request did not get through.
enum Stopped {
    /// Another one was faster.
    Conflict,
    Problem(Problem),
}

impl From<StateError> for Stopped {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Conflict => Self::Conflict,
            error => Self::Problem(error.into()),
        }
    }
}

impl From<Problem> for Stopped {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Hands the records from stage to stage, and commits what they have changed. A request whose key is known was carried out
/// before, and is answered as then.
async fn run(
    scope: &Scope<'_, SpinBucket, Times>,
    settings: &Settings,
    mut work: Work,
    keyed: Option<Keyed<'_>>,
) -> Result<Answer, Stopped> {
    let before = scope.begin().await?;
    let known = match keyed {
        Some(keyed) => scope.known(&before, keyed).await?,
        None => Known::New,
    };
    match known {
        Known::New => {}
        Known::Answered(answer) => {
            let (total, out): (Counts, Vec<u8>) = postcard::from_bytes(&answer).map_err(unreadable)?;
            return Ok(answered(out, &total));
        }
        Known::OtherRequest => {
            let detail =
                format!("header {IDEMPOTENCY_KEY} has the key of an earlier request with another body or format");
            return Err(Problem::new(What::BadParameter, detail).into());
        }
    }
    let mut watermark = Watermark::new(settings.watermark);
    watermark.set(before.meta.newest, before.meta.watermark);
    let (mut out, mut rejects, mut changes, mut total) = (Vec::new(), Vec::new(), Vec::new(), Counts::default());
    for (at, stage) in settings.stages.iter().enumerate() {
        let area = before.areas.get(stage).cloned().unwrap_or_default();
        let pass = Pass { scope: scope.name().to_owned(), root: before.id(), area, work };
        let answer = ask(stage, &pass).await?;
        let is_last = at + 1 == settings.stages.len();
        if answer.is_writer != is_last {
            let detail = format!("variable \"stages\": {stage} is there, where the last is a writer, and no other");
            return Err(Problem::new(What::Internal, detail).into());
        }
        rejects.extend(answer.rejects);
        out.extend(answer.rows);
        let mut events = answer.events;
        let is_first = at == 0;
        if is_first {
            total.entered = answer.counts.entered;
            let mut names = Names::default();
            let decoded = events.unpack(&mut names).map_err(|breach| fault(stage, &breach.to_string()))?;
            let assigned = watermark.assign(decoded);
            for early in &assigned.early {
                write_dead_event(&early.group, 0, &early.reason, &names, &mut rejects);
            }
            total.dead += assigned.early.len() as u64;
            events = Hop::pack(assigned.batch, &names);
        }
        count(&mut total, &answer.counts, is_last);
        changes.push(Changes { area: stage.clone(), watermark: watermark.current(), ..answer.changes });
        work = Work::Events(events);
    }
    out.extend(rejects);
    let answer = (total, out);
    // Counts and bytes can always be written.
    let kept = keyed.map(|keyed| (keyed, postcard::to_allocvec(&answer).unwrap_or_default()));
    if let Some(bytes) = kept.as_ref().map(|(_, kept)| kept.len()).filter(|bytes| *bytes as u64 > ANSWERS_BYTES_MAX) {
        let detail = format!(
            "the answer would have {bytes} bytes; one that is kept may have {ANSWERS_BYTES_MAX}: send it in parts"
        );
        return Err(Problem::new(What::BodyTooLarge, detail).into());
    }
    let times = Times { newest: watermark.newest(), watermark: watermark.current() };
    scope.commit(&before, Next { meta: Some(times), changes, forgotten: None, answer: kept }).await?;
    let (total, out) = answer;
    Ok(answered(out, &total))
}

/// The answer to a request: in + derived = out + duplicate + late + dropped + dead.
fn answered(out: Vec<u8>, total: &Counts) -> Answer {
    let mut answer = lines(out, total);
    answer.headers_mut().insert("tapeline-derived", HeaderValue::from(total.derived));
    answer
}

fn unreadable(error: postcard::Error) -> Problem {
    Problem::new(What::Internal, format!("a stored answer cannot be read: {error}"))
}

/// Adds what a stage has counted: what leaves the pipeline on the way, and at its end what gets through.
fn count(total: &mut Counts, counts: &Counts, is_last: bool) {
    total.duplicate += counts.duplicate;
    total.late += counts.late;
    total.dead += counts.dead;
    total.derived += counts.derived;
    for (rule, dropped) in &counts.dropped {
        *total.dropped.entry(rule.clone()).or_default() += dropped;
    }
    if is_last {
        total.out = counts.out;
    }
}

async fn ask(stage: &str, pass: &Pass) -> Result<PassAnswer, Stopped> {
    let bytes = postcard::to_allocvec(pass).map_err(|error| fault(stage, &error.to_string()))?;
    let url = format!("http://{stage}.spin.internal{PASS_PATH}");
    let away = |error| Problem::new(What::Unavailable, format!("stage {stage} does not answer: {error}"));
    let response = http::post(url, bytes).await.map_err(away)?;
    let status = response.status();
    let body = crate::http::message(response.into_body(), &format!("the answer of stage {stage}")).await?;
    if status == StatusCode::OK {
        return Ok(postcard::from_bytes(&body).map_err(|error| fault(stage, &error.to_string()))?);
    }
    let told = tapeline_invoke::problem::told(&body);
    if told.as_ref().is_some_and(|(what, _)| *what == What::Busy.uri()) {
        return Err(Stopped::Conflict);
    }
    // Not of the stage's making.
    for what in [What::Unavailable, What::Internal, What::BodyTooLarge] {
        if let Some((_, reason)) = told.as_ref().filter(|(found, _)| *found == what.uri()) {
            return Err(Problem::new(what, format!("stage {stage}: {reason}")).into());
        }
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return Err(Problem::new(What::Unavailable, format!("stage {stage} does not answer")).into());
    }
    let told = told.map(|(_, reason)| reason);
    let reason =
        told.unwrap_or_else(|| "it trapped, or took more than it may; nothing of the request is stored".to_owned());
    Err(fault(stage, &reason).into())
}

fn fault(stage: &str, reason: &str) -> Problem {
    Problem::new(What::StageFault, format!("stage {stage}: {reason}"))
}

impl Settings {
    async fn load() -> Result<Self, Problem> {
        let stages = variable("stages").await?;
        let stages: Vec<String> = stages.split(',').map(|stage| stage.trim().to_owned()).collect();
        let is_twice = |(at, stage): (usize, &String)| stages[..at].contains(stage);
        if let Some((_, unfit)) =
            stages.iter().enumerate().find(|&(at, stage)| stage.is_empty() || is_twice((at, stage)))
        {
            let detail = format!("variable \"stages\": {unfit:?} instead of a stage that is not there before it");
            return Err(Problem::new(What::Internal, detail));
        }
        let watermark = WatermarkSettings {
            delay: duration("watermark_delay").await?,
            every: duration("watermark_every").await?,
            max_future: duration("watermark_max_future").await?,
        };
        Ok(Self { name: variable("pipeline").await?, stages, watermark })
    }
}

/// A variable that is a length of time, ns.
async fn duration(name: &str) -> Result<i64, Problem> {
    let text = variable(name).await?;
    let unfit =
        || Problem::new(What::Internal, format!("variable {name:?}: {text:?} instead of a time such as \"2s\""));
    let duration = humantime::parse_duration(&text).map_err(|_| unfit())?;
    i64::try_from(duration.as_nanos()).map_err(|_| unfit())
}
