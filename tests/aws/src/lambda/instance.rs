//! An instance of a function: a process of `bootstrap`, and the Lambda Runtime API that it asks for calls
//! (<https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>). It stands for AWS Lambda, which cannot run here; the
//! tests of a deployed stack have the one that comes with ministack, which neither kills nor repeats.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use nix::unistd::Pid;
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Mutex as AsyncMutex, mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::{
    local,
    way::{Killing, Last, Way},
};
use crate::local_aws::REGION;

const API: &str = "/2018-06-01/runtime/";
/// How often it is looked whether the process is still there.
const LOOK: Duration = Duration::from_millis(5);
/// Longer than a process takes to start on a machine that does too much.
const START: Duration = Duration::from_secs(30);

/// What a function is.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// What it is told.
    pub environment: BTreeMap<&'static str, String>,
    /// Its program and components.
    pub package: PathBuf,
    /// A file that its processes log to.
    pub log: PathBuf,
    /// A file for what they print, which is what CloudWatch is told: lines of JSON.
    pub printed: PathBuf,
}

/// A process of a function. It ends with this.
pub struct Instance {
    process: Child,
    /// Its way to AWS.
    way: Way,
    calls: mpsc::UnboundedSender<Call>,
    api: Arc<Api>,
    server: JoinHandle<()>,
    started: Instant,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The function says that it has failed.
    #[error("the function has failed: {0}")]
    Failed(String),
    /// The process has ended.
    #[error("the process has ended")]
    Ended,
    /// It took too long. The process has been ended.
    #[error("it took too long")]
    TooLong,
}

struct Call {
    event: String,
    deadline: SystemTime,
    answer: oneshot::Sender<Result<Value, NoAnswer>>,
}

impl Instance {
    /// Starts a process of a package.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(function: &Function, way: Way) -> Result<Self> {
        let listener = TcpListener::bind(local(0)).await?;
        let address = listener.local_addr()?;
        let (calls, called) = mpsc::unbounded_channel();
        let api = Arc::new(Api {
            called: AsyncMutex::new(called),
            calls: AtomicU64::new(0),
            open: Mutex::default(),
            timed: Mutex::default(),
        });
        let server = tokio::spawn({
            let api = Arc::clone(&api);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let _ = client.set_nodelay(true);
                    let api = Arc::clone(&api);
                    let service = service_fn(move |request| {
                        let api = Arc::clone(&api);
                        async move { api.answer(request).await.map_err(std::io::Error::other) }
                    });
                    tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(client), service));
                }
            }
        });
        let open = |path: &Path| File::options().create(true).append(true).open(path);
        let (log, printed) = (open(&function.log)?, open(&function.printed)?);
        let started = Instant::now();
        let process = Command::new(function.package.join("bootstrap"))
            .current_dir(&function.package)
            .env_clear()
            .envs(&function.environment)
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", &function.name)
            .envs([("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"), ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")])
            .envs([("AWS_LAMBDA_LOG_GROUP_NAME", "log"), ("AWS_LAMBDA_LOG_STREAM_NAME", "log")])
            .envs([("AWS_REGION", REGION), ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
            .env("AWS_ENDPOINT_URL", &way.endpoint)
            .env("LAMBDA_TASK_ROOT", &function.package)
            .stdin(Stdio::null())
            .stdout(printed)
            .stderr(log)
            .spawn()
            .context("start bootstrap")?;
        Ok(Self { process, way, calls, api, server, started })
    }

    /// Calls the function with an event; it may take so long.
    ///
    /// # Errors
    /// Says why there is no answer.
    pub async fn call(&mut self, event: &Value, time: Duration) -> Result<Value, NoAnswer> {
        let (answer, mut answered) = oneshot::channel();
        let call = Call { event: event.to_string(), deadline: SystemTime::now() + time, answer };
        if self.calls.send(call).is_err() {
            return Err(NoAnswer::Ended);
        }
        let started = Instant::now();
        loop {
            if let Ok(answer) = timeout(LOOK, &mut answered).await {
                return answer.unwrap_or(Err(NoAnswer::Ended));
            }
            if !self.is_alive() {
                return Err(NoAnswer::Ended);
            }
            if started.elapsed() > time + START {
                self.kill();
                return Err(NoAnswer::TooLong);
            }
        }
    }

    /// Calls it, and kills its process after so long.
    ///
    /// # Errors
    /// As of [`Self::call`].
    pub async fn call_and_kill(&mut self, event: &Value, time: Duration, after: Duration) -> Result<Value, NoAnswer> {
        let called = timeout(after, self.call(event, time)).await;
        called.unwrap_or_else(|_| {
            self.kill();
            Err(NoAnswer::Ended)
        })
    }

    /// Calls it, and kills its process at a request that it sends.
    ///
    /// # Errors
    /// As of [`Self::call`].
    pub async fn call_and_kill_at(
        &mut self,
        event: &Value,
        time: Duration,
        (after, last): (u32, Last),
    ) -> Result<Value, NoAnswer> {
        let process = Pid::from_raw(self.process.id().cast_signed());
        self.way.set_killing(Some(Killing { process, after, last }));
        let called = self.call(event, time).await;
        self.way.set_killing(None);
        called
    }

    /// From the start of the process to its first answer, once there is one.
    pub fn first_answer(&self) -> Option<Duration> {
        let answered = self.api.timed().first_answer?;
        Some(answered.duration_since(self.started))
    }

    /// How long it had calls, of which Lambda takes so much money: from when it was given each to when it answered.
    pub fn billed(&self) -> Duration {
        self.api.timed().billed
    }

    /// Processor time of its threads.
    ///
    /// # Errors
    /// When this machine does not say.
    pub fn cpu(&self) -> Result<Duration> {
        let mut ns = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            // One that has ended meanwhile says nothing.
            let Ok(told) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            ns += told.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).context("time of a thread")?;
        }
        Ok(Duration::from_nanos(ns))
    }

    /// The most memory that it had at once, bytes.
    ///
    /// # Errors
    /// When this machine does not say.
    pub fn peak_bytes(&self) -> Result<u64> {
        let told = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = told.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("VmHWM")?;
        Ok(kib.trim().parse::<u64>()? * 1024)
    }

    /// Whether it can be called.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Ends the process as if the machine were gone.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
        self.server.abort();
    }
}

/// What a process asks.
struct Api {
    called: AsyncMutex<mpsc::UnboundedReceiver<Call>>,
    calls: AtomicU64,
    open: Mutex<HashMap<String, Given>>,
    timed: Mutex<Timed>,
}

/// A call that a process was given.
struct Given {
    at: Instant,
    caller: oneshot::Sender<Result<Value, NoAnswer>>,
}

/// When it answered.
#[derive(Default)]
struct Timed {
    first_answer: Option<Instant>,
    billed: Duration,
}

impl Api {
    fn timed(&self) -> MutexGuard<'_, Timed> {
        self.timed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
        let path = request.uri().path().strip_prefix(API).unwrap_or_default().to_owned();
        let is_get = request.method() == Method::GET;
        let body = request.into_body().collect().await?.to_bytes();
        let now = Instant::now();
        match *path.split('/').collect::<Vec<_>>() {
            ["invocation", "next"] if is_get => self.next().await,
            ["invocation", id, "response"] => self.close(id, Ok(serde_json::from_slice(&body)?), now),
            ["invocation", id, "error"] => self.close(id, Err(NoAnswer::Failed(text(&body))), now),
            // Lambda ends a process that says so, and so does it itself.
            ["init", "error"] => accepted(),
            _ => Ok(Response::builder().status(StatusCode::NOT_FOUND).body(Full::default())?),
        }
    }

    async fn next(&self) -> Result<Response<Full<Bytes>>> {
        let mut called = self.called.lock().await;
        let Some(Call { event, deadline, answer }) = called.recv().await else {
            // Nothing will come any more.
            return std::future::pending().await;
        };
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let id = format!("00000000-0000-0000-0000-{number:012}");
        let given = Given { at: Instant::now(), caller: answer };
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), given);
        let deadline = deadline.duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
        let response = Response::builder()
            .header("lambda-runtime-aws-request-id", id)
            .header("lambda-runtime-deadline-ms", deadline.to_string())
            .header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:000000000000:function:f")
            .header("content-type", "application/json");
        Ok(response.body(event.into())?)
    }

    fn close(&self, id: &str, answer: Result<Value, NoAnswer>, now: Instant) -> Result<Response<Full<Bytes>>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Given { at, caller } = open.remove(id).context("an answer to no call")?;
        let mut timed = self.timed();
        timed.first_answer.get_or_insert(now);
        timed.billed += now.duration_since(at);
        // Whoever has called may have gone.
        let _ = caller.send(answer);
        accepted()
    }
}

fn accepted() -> Result<Response<Full<Bytes>>> {
    Ok(Response::builder().status(StatusCode::ACCEPTED).body(r#"{"status":"OK"}"#.into())?)
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}
