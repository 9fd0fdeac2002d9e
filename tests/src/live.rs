//! A pipeline that runs, with somebody who changes its stages meanwhile.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{listening::Listening, program};

/// What shows that one may administer the hosts of tests.
pub const TOKEN: &str = "the-token-of-these-tests";
/// How long something may take that takes milliseconds on a machine with nothing else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host that runs a pipeline, or stages of one.
pub struct LiveHost {
    listening: Listening,
    agent: ureq::Agent,
    /// Its data folder.
    pub data: PathBuf,
}

/// An answer: status and document.
pub type Answer = (u16, Value);

impl LiveHost {
    /// Starts a host without a source, with more arguments.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(pipeline: &Path, data: &Path, more: &[&str]) -> Result<Self> {
        Self::start_as(pipeline, data, more, Some(TOKEN))
    }

    /// Starts a host that is administered with this token, or not at all.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_as(pipeline: &Path, data: &Path, more: &[&str], token: Option<&str>) -> Result<Self> {
        std::fs::create_dir_all(data)?;
        let errors = std::fs::File::options().create(true).append(true).open(data.join("errors.txt"))?;
        let mut up = Command::new(program::path());
        up.arg("up").arg(pipeline).arg("--data").arg(data).arg("--components").arg(program::components());
        up.args(["--no-source", "--listen", "127.0.0.1:0", "--log", "info"]).args(more);
        up.env_remove("TAPELINE_ADMIN_TOKEN").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        if let Some(token) = token {
            up.env("TAPELINE_ADMIN_TOKEN", token);
        }
        let listening = Listening::start(&mut up).with_context(|| Self::errors_in(data))?;
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
        let agent = config.timeout_global(Some(PATIENCE)).build().into();
        Ok(Self { listening, agent, data: data.to_owned() })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.listening.id()
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.listening.address)
    }

    /// What it wrote to standard error.
    pub fn errors(&self) -> String {
        Self::errors_in(&self.data)
    }

    fn errors_in(data: &Path) -> String {
        std::fs::read_to_string(data.join("errors.txt")).unwrap_or_default()
    }

    /// Lets it finish what it has.
    ///
    /// # Errors
    /// When it does not exit with 0.
    pub fn stop(self) -> Result<()> {
        let Self { listening, data, .. } = self;
        listening.stop().with_context(|| Self::errors_in(&data))
    }

    /// Kills it with -9.
    pub fn kill(self) {
        drop(self);
    }

    /// Asks, whoever one is.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn get(&self, path: &str) -> Result<Answer> {
        read(self.agent.get(format!("{}{path}", self.url())).call()?)
    }

    /// Changes something, showing a token.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn post_as(&self, path: &str, token: Option<&str>, body: &[u8]) -> Result<Answer> {
        let mut request = self.agent.post(format!("{}{path}", self.url()));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        read(request.send(body)?)
    }

    /// Changes something.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn post(&self, path: &str) -> Result<Answer> {
        self.post_as(path, Some(TOKEN), b"")
    }

    /// Uploads a component, showing a token.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn push_as(&self, stage: &str, query: &str, token: Option<&str>, component: &[u8]) -> Result<Answer> {
        let mut request = self.agent.put(format!("{}/stages/{stage}/component?{query}", self.url()));
        // Whoever is refused does not send it all first.
        request = request.header("expect", "100-continue");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        read(request.send(component)?)
    }

    /// Uploads a component.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn push(&self, stage: &str, query: &str, component: &[u8]) -> Result<Answer> {
        self.push_as(stage, query, Some(TOKEN), component)
    }

    /// Uploads a component that is taken; gives its version.
    ///
    /// # Errors
    /// When it is refused, or waits for approval.
    pub fn push_version(&self, stage: &str, query: &str, component: &[u8]) -> Result<u64> {
        let (status, answer) = self.push(stage, query, component)?;
        ensure!(status == 201 && answer["standing"] != "pending", "{status} {answer}");
        answer["version"].as_u64().context("a version")
    }

    /// Sends raw frames of Binance into the pipeline, as soon as there is room for them.
    ///
    /// # Errors
    /// When they are refused.
    pub fn send(&self, pipeline: &str, lines: &[&str]) -> Result<()> {
        let body = lines.join("\n");
        let began = Instant::now();
        loop {
            let url = format!("{}/pipelines/{pipeline}/events?format=binance", self.url());
            match read(self.agent.post(url).send(&body)?)? {
                (202, _) => return Ok(()),
                (503, _) if began.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(20)),
                (status, answer) => bail!("{status} {answer}"),
            }
        }
    }

    /// All that is known of a stage's versions.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self, stage: &str) -> Result<Value> {
        let (status, answer) = self.get(&format!("/stages/{stage}"))?;
        ensure!(status == 200, "{status} {answer}");
        Ok(answer)
    }

    /// Waits until all workers of a stage run a version.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_until_live(&self, stage: &str, version: u64) -> Result<()> {
        let what = format!("version {version} runs");
        self.wait_for(stage, &what, |status| runs_everywhere(status, version)).map(drop)
    }

    /// Waits until something is so of a stage.
    ///
    /// # Errors
    /// When that takes too long; tells what is so instead.
    pub fn wait_for(&self, stage: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
        let began = Instant::now();
        loop {
            let status = self.status(stage)?;
            if is_so(&status) {
                return Ok(status);
            }
            ensure!(began.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}: {status:#}\n{}", self.errors());
            thread::sleep(Duration::from_millis(4));
        }
    }

    /// Waits until all that was sent has been processed and committed.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_until_done(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let (_, answer) = self.get("/readyz")?;
            if answer["waiting"] == 0 {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "{answer}\n{}", self.errors());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Whether all workers of a stage run a version.
pub fn runs_everywhere(status: &Value, version: u64) -> bool {
    let workers = status["workers"].as_object();
    status["deployment"]["live"] == version
        && workers
            .is_some_and(|workers| !workers.is_empty() && workers.values().all(|worker| worker["live"] == version))
}

fn read(mut answer: ureq::http::Response<ureq::Body>) -> Result<Answer> {
    let status = answer.status().as_u16();
    let text = answer.body_mut().read_to_string()?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

/// A component of ours, by its file's name.
///
/// # Errors
/// When it has not been built.
pub fn component(name: &str) -> Result<Vec<u8>> {
    let path = program::components().join(format!("{name}.wasm"));
    std::fs::read(&path).with_context(|| format!("read {}", path.display()))
}

/// The same component with other bytes: a custom section at its end, which nobody reads.
pub fn variant(component: &[u8], name: &str) -> Vec<u8> {
    let name = name.as_bytes();
    let length = u8::try_from(name.len()).expect("a short name");
    // <https://webassembly.github.io/spec/core/binary/modules.html#custom-section>, as in components.
    [component, &[0, length + 1, length], name].concat()
}
