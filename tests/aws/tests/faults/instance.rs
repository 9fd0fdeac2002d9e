//! An instance of a function: a process of `bootstrap`, and the Lambda Runtime API that it asks for calls
//! (<https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>). It stands for AWS Lambda, which cannot run here; the
//! tests of a deployed stack have the one that comes with ministack, which neither kills nor repeats.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
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
use tapeline_aws_tests::local_aws::REGION;
use tokio::{
    net::TcpListener,
    sync::{Mutex as AsyncMutex, mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    local,
    way::{Killing, Last, Way},
};

const API: &str = "/2018-06-01/runtime/";
/// How often it is looked whether the process is still there.
const LOOK: Duration = Duration::from_millis(5);
/// Longer than a process takes to start on a machine that does too much.
const START: Duration = Duration::from_secs(30);

/// What a function is.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// What it is told.
    pub(crate) environment: BTreeMap<&'static str, String>,
    /// Its program and components.
    pub(crate) package: PathBuf,
    /// A file that its processes log to.
    pub(crate) log: PathBuf,
    /// A file with what its processes tell CloudWatch, lines of JSON.
    pub(crate) metrics: PathBuf,
}

/// A process of a function. It ends with this.
pub(crate) struct Instance {
    process: Child,
    /// Its way to AWS.
    way: Way,
    calls: mpsc::UnboundedSender<Call>,
    api: JoinHandle<()>,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
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
    pub(crate) async fn start(function: &Function, way: Way) -> Result<Self> {
        let listener = TcpListener::bind(local(0)).await?;
        let address = listener.local_addr()?;
        let (calls, called) = mpsc::unbounded_channel();
        let api = Arc::new(Api { called: AsyncMutex::new(called), calls: AtomicU64::new(0), open: Mutex::default() });
        let api = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let api = Arc::clone(&api);
                let service = service_fn(move |request| {
                    let api = Arc::clone(&api);
                    async move { api.answer(request).await.map_err(std::io::Error::other) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(client), service));
            }
        });
        let append = |path: &Path| File::options().create(true).append(true).open(path);
        let (log, metrics) = (append(&function.log)?, append(&function.metrics)?);
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
            .stdout(metrics)
            .stderr(log)
            .spawn()
            .context("start bootstrap")?;
        Ok(Self { process, way, calls, api })
    }

    /// Calls the function with an event; it may take so long.
    pub(crate) async fn call(&mut self, event: &Value, time: Duration) -> Result<Value, NoAnswer> {
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
    pub(crate) async fn call_and_kill(
        &mut self,
        event: &Value,
        time: Duration,
        after: Duration,
    ) -> Result<Value, NoAnswer> {
        let called = timeout(after, self.call(event, time)).await;
        called.unwrap_or_else(|_| {
            self.kill();
            Err(NoAnswer::Ended)
        })
    }

    /// Calls it, and kills its process at a request that it sends.
    pub(crate) async fn call_and_kill_at(
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

    /// Whether it can be called.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Ends the process as if the machine were gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
        self.api.abort();
    }
}

/// What a process asks.
struct Api {
    called: AsyncMutex<mpsc::UnboundedReceiver<Call>>,
    calls: AtomicU64,
    open: Mutex<HashMap<String, oneshot::Sender<Result<Value, NoAnswer>>>>,
}

impl Api {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
        let path = request.uri().path().strip_prefix(API).unwrap_or_default().to_owned();
        let is_get = request.method() == Method::GET;
        let body = request.into_body().collect().await?.to_bytes();
        match *path.split('/').collect::<Vec<_>>() {
            ["invocation", "next"] if is_get => self.next().await,
            ["invocation", id, "response"] => Ok(self.close(id, Ok(serde_json::from_slice(&body)?))?),
            ["invocation", id, "error"] => self.close(id, Err(NoAnswer::Failed(text(&body)))),
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
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), answer);
        let deadline = deadline.duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
        let response = Response::builder()
            .header("lambda-runtime-aws-request-id", id)
            .header("lambda-runtime-deadline-ms", deadline.to_string())
            .header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:000000000000:function:f")
            .header("content-type", "application/json");
        Ok(response.body(event.into())?)
    }

    fn close(&self, id: &str, answer: Result<Value, NoAnswer>) -> Result<Response<Full<Bytes>>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever has called may have gone.
        let _ = open.remove(id).context("an answer to no call")?.send(answer);
        accepted()
    }
}

fn accepted() -> Result<Response<Full<Bytes>>> {
    Ok(Response::builder().status(StatusCode::ACCEPTED).body(r#"{"status":"OK"}"#.into())?)
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}
