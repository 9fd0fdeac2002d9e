//! HTTP, as an HTTP API or a function URL hands it over: the paths, bodies and problem documents of our own host.

use std::{sync::Arc, time::SystemTime};

use aws_lambda_events::{
    apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse},
    encodings::Body,
    http::{HeaderMap, HeaderValue},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;
use tapeline_invoke::{
    Asking, CallError, Counts, Invoked, NoState,
    admit::{self, BODY_BYTES_MAX},
    body::{EVENTS, records},
    problem::{What, document},
};
use tapeline_runtime::Fault;
use tapeline_state::{Changes, Scope, SessionError, StateError};

use super::{Served, now_ns};
use crate::{
    components::ComponentError,
    message::{ENTRANCE_GROUP, RECORDS_BYTES_MAX, pack_records},
    stage::Stored,
};

/// How often a session's call begins again because another one was faster.
const TRIES_MAX: usize = 16;
/// By its value, a request that comes again within five minutes is known to SQS.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Bytes of an answer: Lambda takes 6 MB, and a third is added by base64.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Bytes of an answer that is sent as the text that it is: in JSON it may become six times as long.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// What JSON lines are called.
const NDJSON: &str = "application/x-ndjson";
const HEALTH_PATH: &str = "/healthz";

/// An error that a client is told.
pub(super) struct Problem {
    what: What,
    detail: String,
}

impl Problem {
    pub(super) fn new(what: What, detail: impl Into<String>) -> Self {
        Self { what, detail: detail.into() }
    }

    fn answer(&self, path: &str) -> Answer {
        let status = self.what.status();
        let mut headers: Vec<_> = self.what.headers().map(|(name, value)| (name, value.to_owned())).collect();
        if status == 405 {
            headers.push(("allow", if path == HEALTH_PATH { "GET,HEAD" } else { "POST" }.to_owned()));
        }
        Answer { status, headers, body: document(self.what, &self.detail, path) }
    }
}

impl From<StateError> for Problem {
    fn from(error: StateError) -> Self {
        match &error {
            StateError::Conflict => Self::new(What::Busy, error.to_string()),
            StateError::Full { .. } => Self::new(What::NotNow, error.to_string()),
            // What a service said names things of the account.
            StateError::Store(_) | StateError::Corrupt(_) => {
                tracing::error!(%error, "no state");
                Self::new(What::Unavailable, "the state cannot be read or written")
            }
        }
    }
}

impl From<ComponentError> for Problem {
    fn from(error: ComponentError) -> Self {
        tracing::error!(%error, "no component");
        match error {
            ComponentError::Unfit(_) => Self::new(What::Internal, "the stage's component cannot be run"),
            ComponentError::Unavailable(_) => Self::new(What::Unavailable, "the stage's component cannot be read"),
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

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self::new(What::StageFault, fault.to_string())
    }
}

/// What is answered.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn of_lines(invoked: Invoked) -> Self {
        let Invoked { lines, counts } = invoked;
        let counted = Counts::headers(&counts).map(|(name, count)| (name, count.to_string()));
        let headers = [("content-type", NDJSON.to_owned())].into_iter().chain(counted).collect();
        Self { status: 200, headers, body: lines }
    }

    fn into_response(self) -> ApiGatewayV2httpResponse {
        let mut response = ApiGatewayV2httpResponse::default();
        response.status_code = i64::from(self.status);
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers.insert(name, value);
            }
        }
        // In JSON a text may become longer than base64, which is sure to fit.
        let text = str::from_utf8(&self.body).ok().filter(|text| text.len() <= TEXT_BYTES_MAX);
        response.is_base64_encoded = text.is_none();
        response.body = Some(Body::Text(text.map_or_else(|| BASE64_STANDARD.encode(&self.body), str::to_owned)));
        response
    }
}

/// What is asked.
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
    body: Option<&'a str>,
    is_base64: bool,
    /// What Lambda calls it.
    id: &'a str,
}

impl Request<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap_or_default())
    }

    fn check_method(&self, is_allowed: impl FnOnce(&str) -> bool) -> Result<(), Problem> {
        if is_allowed(self.method) {
            return Ok(());
        }
        Err(Problem::new(What::WrongMethod, admit::wrong_method(self.path, self.method)))
    }

    fn body(&self) -> Result<Vec<u8>, Problem> {
        admit::check_content(self.header("content-type"), self.header("content-encoding"))
            .map_err(|detail| Problem::new(What::WrongContent, detail))?;
        let text = self.body.unwrap_or_default();
        let body = if self.is_base64 {
            BASE64_STANDARD.decode(text).map_err(|error| Problem::new(What::BadBody, error.to_string()))?
        } else {
            text.as_bytes().to_vec()
        };
        if body.len() > BODY_BYTES_MAX {
            return Err(Problem::new(What::BodyTooLarge, admit::too_large()));
        }
        Ok(body)
    }
}

#[derive(Serialize)]
struct Accepted {
    accepted: usize,
}

impl Served {
    /// Answers a request.
    pub(super) async fn http(&mut self, request: ApiGatewayV2httpRequest, id: &str) -> ApiGatewayV2httpResponse {
        let http = &request.request_context.http;
        let path = request.raw_path.as_deref().or(http.path.as_deref()).unwrap_or("/").to_owned();
        let asked = Request {
            method: http.method.as_str(),
            path: &path,
            query: request.raw_query_string.as_deref(),
            headers: &request.headers,
            body: request.body.as_deref(),
            is_base64: request.is_base64_encoded,
            id,
        };
        let answer = self.respond(asked).await.unwrap_or_else(|problem| problem.answer(&path));
        answer.into_response()
    }

    async fn respond(&mut self, request: Request<'_>) -> Result<Answer, Problem> {
        let segments: Vec<&str> = request.path.split('/').skip(1).collect();
        match segments.as_slice() {
            ["healthz"] => {
                request.check_method(|method| matches!(method, "GET" | "HEAD"))?;
                let headers = vec![("content-type", "text/plain; charset=utf-8".to_owned())];
                Ok(Answer { status: 200, headers, body: b"ok\n".to_vec() })
            }
            ["pipelines", name, "events"] => {
                request.check_method(|method| method == "POST")?;
                self.check_token(request.header("authorization")).await?;
                self.take_events(name, &request).await
            }
            ["stages", name, "invoke"] => {
                request.check_method(|method| method == "POST")?;
                self.check_token(request.header("authorization")).await?;
                Ok(Answer::of_lines(self.invoke(name, &request).await?))
            }
            _ => Err(Problem::new(What::UnknownRoute, format!("there is no {}", request.path))),
        }
    }

    /// Puts records into the first queue; they are there when it answers.
    async fn take_events(&self, name: &str, request: &Request<'_>) -> Result<Answer, Problem> {
        let known = &self.function.settings.pipeline;
        if name != known {
            return Err(Problem::new(What::UnknownPipeline, admit::unknown_pipeline(name, known)));
        }
        let parameter = |detail| Problem::new(What::BadParameter, detail);
        let [format] = admit::parameters(request.query, ["format"]).map_err(parameter)?;
        let format = admit::format_or_events(format).map_err(parameter)?;
        let key = request.header(IDEMPOTENCY_KEY);
        key.map_or(Ok(()), admit::check_idempotency_key).map_err(parameter)?;
        let body = request.body()?;
        let entering = admit::entering(&body, &format).map_err(|detail| Problem::new(What::BadBody, detail))?;
        // An element of an array may stand on several lines. JSON has line ends only between tokens.
        let lines: Vec<Vec<u8>> = entering.iter().map(|record| one_line(record)).collect();
        let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        let messages = pack_records(&lines, &format, Some(now_ns())).map_err(|(at, bytes)| {
            let detail = format!("record {}: {bytes} bytes; one may have {RECORDS_BYTES_MAX} here", at + 1);
            Problem::new(What::BadBody, detail)
        })?;
        // By its key, and by what it says: another request with the same key is another one.
        let key =
            key.map(|key| tapeline_runtime::digest(&[key.as_bytes(), &[0], format.as_bytes(), &[0], &body].concat()));
        let known_by = |at: usize| format!("{}-{at}", key.as_deref().unwrap_or(request.id));
        let messages = messages.iter().enumerate().map(|(at, raw)| (known_by(at), raw.encode())).collect();
        let sent = self.function.entrance.send(vec![(ENTRANCE_GROUP.to_owned(), messages)]).await;
        sent.map_err(|error| {
            tracing::error!(%error, "events were not taken");
            Problem::new(What::Unavailable, "the queue did not take the records; send them again, with the same key")
        })?;
        let accepted = Accepted { accepted: entering.len() };
        let headers = vec![("content-type", "application/json".to_owned())];
        Ok(Answer { status: 202, headers, body: tapeline_invoke::json(&accepted).into_bytes() })
    }

    async fn invoke(&mut self, name: &str, request: &Request<'_>) -> Result<Invoked, Problem> {
        let known: Vec<String> = self.function.settings.stages.iter().map(|stage| stage.name.clone()).collect();
        if !known.iter().any(|stage| stage == name) {
            let known = known.iter().map(String::as_str);
            return Err(Problem::new(What::UnknownStage, admit::unknown_stage(name, known)));
        }
        let parameter = |detail| Problem::new(What::BadParameter, detail);
        let [session, format] = admit::parameters(request.query, ["session", "format"]).map_err(parameter)?;
        let body = request.body()?;
        let format = format.as_deref();
        let kind = format.unwrap_or(EVENTS);
        admit::check_record_count(&body, kind).map_err(|detail| Problem::new(What::BadBody, detail))?;
        session.as_deref().map_or(Ok(()), admit::check_session).map_err(parameter)?;
        let records = records(&body, kind).map_err(|error| Problem::new(What::BadBody, error.to_string()))?;
        // No receive time: the answer depends on what was sent alone.
        let asking = Asking { format, received: None };
        match session {
            None => self.invoke_once(name, &records, asking).await,
            Some(session) => self.invoke_in_session(name, &session, &records, asking).await,
        }
    }

    async fn invoke_once(&mut self, name: &str, records: &[&[u8]], asking: Asking<'_>) -> Result<Invoked, Problem> {
        let Some((stage, component)) = self.function.stage(name).await? else { return Err(gone(name)) };
        loop {
            let is_fresh = !stage.is_kept();
            let mut caller = stage.take(&component).await?;
            let called = caller.call(records, asking, None::<&mut NoState>).await;
            stage.keep(&component, caller);
            match called {
                // What it did before may be to blame.
                Err(CallError::Fault(_)) if !is_fresh => stage.forget(),
                called => {
                    let (invoked, _) = called?;
                    check_size(&invoked)?;
                    return Ok(invoked);
                }
            }
        }
    }

    async fn invoke_in_session(
        &mut self,
        name: &str,
        session: &str,
        records: &[&[u8]],
        asking: Asking<'_>,
    ) -> Result<Invoked, Problem> {
        for _ in 0..TRIES_MAX {
            match self.try_in_session(name, session, records, asking).await {
                Err(Tried::Again) => {}
                Err(Tried::Failed(problem)) => return Err(problem),
                Ok(invoked) => return Ok(invoked),
            }
        }
        Err(StateError::Conflict.into())
    }

    async fn try_in_session(
        &mut self,
        name: &str,
        session: &str,
        records: &[&[u8]],
        asking: Asking<'_>,
    ) -> Result<Invoked, Tried> {
        let called = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let state = Arc::clone(self.function.state());
        let scope = Scope::of_sessions(&*state, name);
        let open = scope.open(session, called).await?;
        let Some((stage, component)) = self.function.stage(name).await.map_err(Problem::from)? else {
            return Err(gone(name).into());
        };
        let is_fresh = !stage.is_kept();
        let mut caller = stage.take(&component).await.map_err(Problem::from)?;
        let mut stored = Stored::new(&scope, open.root(), open.area());
        let answered = caller.call(records, asking, Some(&mut stored)).await;
        if let Some(error) = stored.failed() {
            return Err(SessionError::State(error).into());
        }
        if !is_fresh && matches!(answered, Err(CallError::Fault(_))) {
            stage.forget();
            return Err(Tried::Again);
        }
        let (invoked, watermark) = answered.map_err(Problem::from)?;
        // Before the session is changed.
        check_size(&invoked)?;
        let changes: Changes = stored.changes(session, &mut caller, watermark).await.map_err(Problem::from)?;
        stage.keep(&component, caller);
        scope.close(&open, changes).await?;
        Ok(invoked)
    }
}

/// What a try with a session came to.
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
            SessionError::State(StateError::Conflict) => Self::Again,
            SessionError::State(error) => Self::Failed(error.into()),
        }
    }
}

fn check_size(invoked: &Invoked) -> Result<(), Problem> {
    let bytes = invoked.lines.len();
    if bytes <= ANSWER_BYTES_MAX {
        return Ok(());
    }
    let detail = format!("the answer would have {bytes} bytes; it may have {ANSWER_BYTES_MAX}: send it in parts");
    Err(Problem::new(What::BodyTooLarge, detail))
}

fn gone(name: &str) -> Problem {
    Problem::new(What::Internal, format!("stage {name} is gone"))
}

fn one_line(record: &[u8]) -> Vec<u8> {
    record.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}
