//! Any base address: whatever serves the stages of the main job there, in its own way.

use std::time::Duration;

use anyhow::{Context, Result};
use ureq::http::{HeaderMap, Request};

use super::{Answer, Call, Case, Counts, Runtime};

/// How long an answer may take: that to 8 MiB of events takes some seconds where nothing is optimised.
const PATIENCE: Duration = Duration::from_secs(60);
/// A body of more than this is only sent once somebody wants it: who refuses it need not read it.
const UNASKED_BYTES_MAX: usize = 1 << 20;

/// A server at a base address. It has settings of its own, which must be those of the pipeline of the main job.
pub struct Base {
    url: String,
    token: Option<String>,
    agent: ureq::Agent,
}

impl Base {
    /// Calls the server at this address, such as `http://127.0.0.1:3000`, showing a token if there is one.
    pub fn new(url: &str, token: Option<&str>) -> Self {
        // Whoever refuses a body may close the connection, so that none is used again.
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).max_idle_connections(0);
        let agent = config.timeout_global(Some(PATIENCE)).build().into();
        Self { url: url.trim_end_matches('/').to_owned(), token: token.map(str::to_owned), agent }
    }
}

impl Runtime for Base {
    fn name(&self) -> &str {
        "base"
    }

    fn leaves_out(&self, case: &Case) -> Option<&'static str> {
        case.settings.is_some().then_some("it has settings of its own")
    }

    fn call(&self, case: &Case, call: &Call) -> Result<Answer> {
        let question = if call.query.is_empty() { String::new() } else { format!("?{}", call.query) };
        let url = format!("{}/stages/{}/invoke{question}", self.url, case.stage);
        let body = call.body();
        let mut request = Request::builder().method(call.method.as_str()).uri(&url);
        request = request.header("content-type", &call.content_type);
        if let Some(encoding) = &call.content_encoding {
            request = request.header("content-encoding", encoding);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.len() > UNASKED_BYTES_MAX {
            request = request.header("expect", "100-continue");
        }
        let answer = self.agent.run(request.body(body.as_slice())?);
        let mut answer = answer.with_context(|| format!("ask {url}"))?;
        Ok(Answer {
            status: answer.status().as_u16(),
            content_type: content_type(answer.headers()),
            counts: counts(answer.headers())?,
            body: answer.body_mut().read_to_vec()?,
        })
    }
}

fn content_type(headers: &HeaderMap) -> String {
    let given = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// What the headers say became of the events; `None` when they say nothing of it.
fn counts(headers: &HeaderMap) -> Result<Option<Counts>> {
    if !headers.keys().any(|name| name.as_str().starts_with("tapeline-")) {
        return Ok(None);
    }
    let count = |name: &str| {
        let value = headers.get(name).with_context(|| format!("the answer has no header {name}"))?;
        value.to_str().ok().and_then(|text| text.parse().ok()).with_context(|| format!("{name}: {value:?}"))
    };
    Ok(Some(Counts {
        entered: count("tapeline-in")?,
        out: count("tapeline-out")?,
        duplicate: count("tapeline-duplicate")?,
        late: count("tapeline-late")?,
        dropped: count("tapeline-dropped")?,
        dead: count("tapeline-dead")?,
    }))
}
