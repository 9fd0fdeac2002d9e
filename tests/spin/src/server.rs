//! HTTP in front of an application: a port, the routes of the manifest, the headers that Spin adds.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use wasmtime_wasi_http::{Error, WasiBody};

use crate::app::Running;
use crate::manifest::{Route, Trigger};

/// Connections at a time. A test has no more, and the next ones wait in the socket's queue.
const CONNECTIONS_MAX: usize = 256;

/// Threads that run components and connections: enough for one component to wait for another on a small machine.
const THREADS: usize = 2;

/// How long a component that is in the middle of something may go on when the server is dropped: it ends where it waits
/// next. One that computes for longer is left behind.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// An application that is served. Dropping it stops it; what components have not answered by then they never do, and
/// what they have not written they never write.
pub struct SpinServer {
    address: SocketAddr,
    running: Arc<Running>,
    runtime: Option<Runtime>,
}

impl SpinServer {
    pub(crate) fn start(running: Arc<Running>) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(THREADS).enable_all().thread_name("spin").build();
        let runtime = runtime.context("starting a runtime")?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).context("listening")?;
        let address = listener.local_addr().context("listening")?;
        runtime.spawn(accept(listener, Arc::clone(&running), address));
        Ok(Self { address, running, runtime: Some(runtime) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Names an address of the application: `http://127.0.0.1:PORT` and the path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many instances of a component were made until now. `None` when there is no such component.
    #[must_use]
    pub fn instances(&self, component: &str) -> Option<usize> {
        self.running.instances(component)
    }
}

impl Drop for SpinServer {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        self.running.stop();
        // On a thread of its own: a runtime must not be waited for on a thread of another one, as in an async test.
        let stopped = thread::spawn(move || runtime.shutdown_timeout(STOP_TIMEOUT)).join();
        if stopped.is_err() {
            eprintln!("stopping the server panicked");
        }
    }
}

/// The answer to what a component failed at: Spin gives no reason to the outside.
pub(crate) fn failed() -> Response<WasiBody> {
    empty(StatusCode::INTERNAL_SERVER_ERROR)
}

fn empty(status: StatusCode) -> Response<WasiBody> {
    let mut response = Response::new(Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

async fn accept(listener: TcpListener, running: Arc<Running>, address: SocketAddr) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        // A connection that ended before it was accepted is no reason to stop.
        let Ok((stream, client)) = listener.accept().await else { continue };
        let running = Arc::clone(&running);
        tokio::spawn(async move {
            serve(stream, &running, client, address).await;
            drop(permit);
        });
    }
}

async fn serve(stream: TcpStream, running: &Running, client: SocketAddr, address: SocketAddr) {
    let answer = |request| async move { Ok::<_, Infallible>(answer(running, request, client, address).await) };
    // A client that goes away in the middle is the client's business.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
}

async fn answer(
    running: &Running,
    mut request: Request<Incoming>,
    client: SocketAddr,
    address: SocketAddr,
) -> Response<WasiBody> {
    let Some(Trigger { route: Some(route), component }) = running.route(request.uri().path()) else {
        return empty(StatusCode::NOT_FOUND);
    };
    if prepare(&mut request, route, client, address).is_none() {
        return empty(StatusCode::BAD_REQUEST);
    }
    let request = request.map(|body| body.map_err(Error::Hyper).boxed_unsync());
    running.handle(component, request).await.unwrap_or_else(|error| {
        eprintln!("the component {component} failed: {error:#}");
        failed()
    })
}

/// Makes the address of a request complete, and adds the headers that say how it came here.
fn prepare(request: &mut Request<Incoming>, route: &Route, client: SocketAddr, address: SocketAddr) -> Option<()> {
    let host = match request.headers().get(HOST) {
        Some(host) => host.to_str().ok()?.to_owned(),
        None => address.to_string(),
    };
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(host.parse::<Authority>().ok()?);
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    let path = request.uri().path().to_owned();
    let full = request.uri().to_string();
    let headers = [
        ("spin-path-info", route.below(&path).to_owned()),
        ("spin-full-url", full),
        ("spin-matched-route", route.to_string()),
        ("spin-base-path", "/".to_owned()),
        ("spin-raw-component-route", route.to_string()),
        ("spin-component-route", route.prefix().to_owned()),
        ("spin-client-addr", client.to_string()),
    ];
    headers.into_iter().try_for_each(|(name, value)| insert(request.headers_mut(), name, &value))
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) -> Option<()> {
    headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).ok()?);
    Some(())
}
