//! The way of one process to AWS, on which things go wrong: an HTTP proxy of its own.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
    header::{CONTENT_TYPE, TRANSFER_ENCODING},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand_chacha::ChaCha8Rng;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex as AsyncMutex,
    task::JoinHandle,
    time::sleep,
};

use super::{
    faults::{Faults, Told, chance, random, up_to},
    local,
    meter::{Meter, Open},
};

/// How a request to DynamoDB begins the name of what it asks for, in this header.
pub(super) const TARGET: &str = "x-amz-target";
pub(super) const DYNAMODB: &str = "DynamoDB_20120810.";
/// What DynamoDB counts as writes.
const WRITES: [&str; 4] = ["PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem"];
/// How much later a late request comes: others can do a batch meanwhile.
const LATE_MS_MAX: u32 = 300;

/// A way. It ends with this.
pub struct Way {
    /// What is to be asked instead of AWS.
    pub endpoint: String,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct State {
    port: u16,
    faults: Faults,
    random: Mutex<ChaCha8Rng>,
    told: Arc<Told>,
    killing: Mutex<Option<Killing>>,
    meter: Option<Arc<Meter>>,
}

/// At which request a process is killed.
#[derive(Clone, Copy)]
pub struct Killing {
    /// The process.
    pub process: Pid,
    /// Requests until then.
    pub after: u32,
    /// What becomes of that one.
    pub last: Last,
}

/// What becomes of the last request of a process that is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// It does not come to AWS.
    Lost,
    /// It is carried out, before the process is killed.
    CarriedOut,
    /// It comes late: others may have done the work meanwhile.
    Late,
}

impl Way {
    /// Opens a way to a port of this machine.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn open(port: u16, faults: Faults, random: ChaCha8Rng, told: Arc<Told>) -> Result<Self> {
        let (random, killing) = (Mutex::new(random), Mutex::default());
        Self::with(State { port, faults, random, told, killing, meter: None }).await
    }

    /// Opens a way on which nothing goes wrong, and everything is counted.
    ///
    /// # Errors
    /// As of [`Self::open`].
    pub async fn metered(port: u16, meter: Arc<Meter>) -> Result<Self> {
        let (random, told) = (Mutex::new(random(0, 0)), Arc::new(Told::default()));
        let (faults, killing) = (Faults::default(), Mutex::default());
        Self::with(State { port, faults, random, told, killing, meter: Some(meter) }).await
    }

    async fn with(state: State) -> Result<Self> {
        let listener = TcpListener::bind(local(0)).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(state);
        let server = tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    // What is written in two pieces must not wait for the first to be acknowledged.
                    let _ = client.set_nodelay(true);
                    tokio::spawn(serve(client, Arc::clone(&state)));
                }
            }
        });
        Ok(Self { endpoint, state, server })
    }

    /// Lets a process be killed by what it asks for, or not.
    pub fn set_killing(&self, killing: Option<Killing>) {
        *self.state.killing.lock().unwrap_or_else(PoisonError::into_inner) = killing;
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Body = Full<Bytes>;
/// The connection to AWS behind one of a client.
type Behind = AsyncMutex<Option<SendRequest<Body>>>;

async fn serve(client: TcpStream, state: Arc<State>) {
    let behind = Arc::new(Behind::default());
    let service = service_fn(move |request| {
        let (state, behind) = (Arc::clone(&state), Arc::clone(&behind));
        // An error closes the connection without an answer.
        async move { pass(request, state, behind).await.map_err(std::io::Error::other) }
    });
    // Clients go whenever they want to.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(client), service).await;
}

async fn pass(request: Request<Incoming>, state: Arc<State>, behind: Arc<Behind>) -> Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let asked = state.meter.as_ref().map(|meter| Open::new(meter, &head, &body));
    let request_body = body.clone();
    let request = Request::from_parts(head, Full::new(body));
    let is_asking = request.method() == Method::GET;
    let is_write = request.headers().get(TARGET).and_then(|name| name.to_str().ok()).is_some_and(is_write);
    let killing = state.killing();
    let last = killing.map(|killing| killing.last);
    if last == Some(Last::Lost) {
        bail!("its process is no more");
    }
    if is_write && last.is_none() && state.happens(state.faults.throttled) {
        Told::count(&state.told.throttled);
        return throttled(&state);
    }
    if is_batch(&request) && last.is_none() && state.happens(state.faults.throttled) {
        Told::count(&state.told.throttled);
        return undone(&request_body);
    }
    let delay = (last == Some(Last::Late) || state.happens(state.faults.late)).then(|| {
        Told::count(&state.told.late);
        Duration::from_millis(u64::from(state.up_to(LATE_MS_MAX)))
    });
    // It comes to AWS even when who asked for it is no more.
    let forwarded = tokio::spawn({
        let state = Arc::clone(&state);
        async move {
            if let Some(delay) = delay {
                sleep(delay).await;
            }
            forward(request, state.port, &behind).await
        }
    });
    let answer = forwarded.await??;
    if let Some(asked) = asked {
        asked.answered(answer.body());
    }
    if let Some(killing) = killing {
        if killing.last == Last::CarriedOut {
            state.told.kill(killing.process);
        }
        bail!("its process is no more");
    }
    if !is_asking && state.happens(state.faults.lost) {
        Told::count(&state.told.lost);
        bail!("the answer is lost");
    }
    Ok(answer.map(Full::new))
}

async fn forward(request: Request<Body>, port: u16, behind: &Behind) -> Result<Response<Bytes>> {
    let mut behind = behind.lock().await;
    let mut sender = match behind.take().filter(|sender| !sender.is_closed()) {
        Some(sender) => sender,
        None => {
            let server = TcpStream::connect(local(port)).await?;
            server.set_nodelay(true)?;
            let (sender, connection) = handshake(TokioIo::new(server)).await?;
            tokio::spawn(connection);
            sender
        }
    };
    sender.ready().await?;
    let (mut head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    // It is sent in one piece.
    head.headers.remove(TRANSFER_ENCODING);
    *behind = Some(sender);
    Ok(Response::from_parts(head, body))
}

fn is_write(target: &str) -> bool {
    target.strip_prefix(DYNAMODB).is_some_and(|name| WRITES.contains(&name))
}

fn is_batch(request: &Request<Body>) -> bool {
    request.headers().get(TARGET).and_then(|name| name.to_str().ok()).and_then(|name| name.strip_prefix(DYNAMODB))
        == Some("BatchGetItem")
}

/// What DynamoDB says when it has no time for a batch.
fn undone(request: &[u8]) -> Result<Response<Body>> {
    let request: serde_json::Value = serde_json::from_slice(request)?;
    let body = serde_json::json!({ "Responses": {}, "UnprocessedKeys": request["RequestItems"] }).to_string();
    let answer = Response::builder().header(CONTENT_TYPE, "application/x-amz-json-1.0");
    answer.body(body.into()).context("an answer")
}

/// What DynamoDB says, of a table and of an account.
fn throttled(state: &State) -> Result<Response<Body>> {
    let (kind, message) = if state.up_to(2) == 0 {
        (
            "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
            "The level of configured provisioned throughput for the table was exceeded. Consider increasing your \
             provisioning level with the UpdateTable API.",
        )
    } else {
        ("com.amazon.coral.availability#ThrottlingException", "Rate of requests exceeds the allowed throughput.")
    };
    let body = serde_json::json!({ "__type": kind, "message": message }).to_string();
    let answer = Response::builder().status(StatusCode::BAD_REQUEST);
    answer.header(CONTENT_TYPE, "application/x-amz-json-1.0").body(body.into()).context("an answer")
}

impl State {
    fn happens(&self, percent: u32) -> bool {
        chance(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner), percent)
    }

    fn up_to(&self, end: u32) -> u32 {
        up_to(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner), end)
    }

    /// Counts a request; whether it is the one at which the process is killed. It is, at once, unless the request is to be
    /// carried out before.
    fn killing(&self) -> Option<Killing> {
        let mut killing = self.killing.lock().unwrap_or_else(PoisonError::into_inner);
        let found = killing.as_mut()?;
        if found.after > 0 {
            found.after -= 1;
            return None;
        }
        if found.last != Last::CarriedOut {
            self.told.kill(found.process);
        }
        killing.take()
    }
}

impl Told {
    fn kill(&self, process: Pid) {
        // It is no other one: whoever has started it has not waited for it.
        if kill(process, Signal::SIGKILL).is_ok() {
            Self::count(&self.killed);
        }
    }
}
