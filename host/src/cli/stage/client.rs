//! Asks a running host about versions.

use std::{io::Read, path::Path, time::Duration};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::super::{output, up};
use crate::{
    error::{Context as _, Error, Kind, Result},
    trigger::http::TOKEN_VARIABLE,
};

/// Bytes of an answer: a deployment has some hundred kilobytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// How long an answer may take: compiling is limited by the host.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(300);

/// A host that runs a pipeline.
pub(super) struct Client {
    agent: ureq::Agent,
    address: String,
    /// Shown where it is asked for. Nothing prints it.
    token: Option<String>,
}

impl Client {
    /// The host at an address, or the one that runs on a data folder.
    pub(super) fn of(url: Option<&str>, data: &Path) -> Result<Self> {
        let address = match url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => up::address_of(data)?,
        };
        // A proxy of the environment is for the world outside, and errors of the host are read from the body.
        let config = ureq::Agent::config_builder().proxy(None).http_status_as_error(false);
        let agent = config.timeout_global(Some(ANSWER_TIME_MAX)).build().into();
        Ok(Self { agent, address, token: std::env::var(TOKEN_VARIABLE).ok() })
    }

    /// Asks.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let url = format!("{}{path}", self.address);
        let place = || format!("ask {url}");
        self.read(&place, self.agent.get(&url).call())
    }

    /// Changes something about a stage.
    pub(super) fn post<T: DeserializeOwned>(&self, stage: &str, what: &str, query: &[(&str, &str)]) -> Result<T> {
        let url = self.url(stage, what, query);
        let place = || format!("{what} stage {stage}");
        let request = self.agent.post(&url).header("authorization", self.bearer()?).header("tapeline-user", user());
        self.read(&place, request.send_empty())
    }

    /// Sends a component.
    pub(super) fn put<T: DeserializeOwned>(
        &self,
        stage: &str,
        query: &[(&str, &str)],
        signature: Option<&str>,
        bytes: &[u8],
    ) -> Result<T> {
        let url = self.url(stage, "component", query);
        let place = || format!("push to stage {stage}");
        let mut request = self.agent.put(&url).header("authorization", self.bearer()?).header("tapeline-user", user());
        // Whoever is refused does not send it all first.
        request = request.header("content-type", "application/wasm").header("expect", "100-continue");
        if let Some(signature) = signature {
            request = request.header("tapeline-signature", encoded(signature));
        }
        self.read(&place, request.send(bytes))
    }

    fn url(&self, stage: &str, what: &str, query: &[(&str, &str)]) -> String {
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        format!("{}/stages/{}/{what}?{}", self.address, encoded(stage), query.join("&"))
    }

    fn bearer(&self) -> Result<String> {
        let missing = || {
            Error::invalid(format!(
                "show who you are: {TOKEN_VARIABLE} is not set; it is what the host was started with"
            ))
        };
        self.token.as_ref().map(|token| format!("Bearer {token}")).ok_or_else(missing)
    }

    fn read<T: DeserializeOwned>(
        &self,
        place: &dyn Fn() -> String,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T> {
        let mut answer = answer.map_err(|error| {
            let what = format!("{}; does the pipeline run at {}?", place(), self.address);
            Error::caused(Kind::Unavailable, what, error)
        })?;
        let mut text = String::new();
        answer.body_mut().as_reader().take(ANSWER_BYTES_MAX).read_to_string(&mut text).doing(place)?;
        let status = answer.status();
        if status.is_success() {
            return serde_json::from_str(&text).map_err(|error| Error::caused(Kind::Corrupt, place(), error));
        }
        let kind = if status.is_client_error() { Kind::Invalid } else { Kind::Unavailable };
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let detail = problem["detail"].as_str().map_or_else(|| format!("{status}: {}", text.trim()), str::to_owned);
        Err(Error::new(kind, format!("{}: {}", place(), output::visible(&detail))))
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Who one is, for the log.
fn user() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    encoded(&user.unwrap_or_else(|_| "somebody".to_owned()))
}
