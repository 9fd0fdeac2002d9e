//! Outbound HTTP: to the hosts that the manifest allows, and to other components of the application.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::Grants;
use crate::manifest::internal_component;

/// The other components of the application.
pub(crate) trait Neighbours: Send + Sync {
    /// Gives a request to the one of this name, whatever its route.
    fn ask(&self, component: &str, request: Request<WasiBody>)
    -> BoxFuture<'static, Result<Response<WasiBody>, Error>>;
}

/// What an instance sends its requests through.
pub(crate) struct Outbound {
    grants: Arc<Grants>,
    neighbours: Arc<dyn Neighbours>,
}

type Driver = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Box<dyn Future<Output = Result<(Response<WasiBody>, Driver), Error>> + Send>;

impl Outbound {
    pub(super) fn new(grants: Arc<Grants>, neighbours: Arc<dyn Neighbours>) -> Self {
        Self { grants, neighbours }
    }
}

impl WasiHttpHooks for Outbound {
    fn send_request(&mut self, request: Request<WasiBody>, _: Option<RequestOptions>, _: Driver) -> Sent {
        if !self.grants.hosts.iter().any(|host| host.allows(request.uri())) {
            return Box::new(async { Err(Error::HttpRequestDenied) });
        }
        let Some(component) = internal_component(request.uri()).map(str::to_owned) else {
            return Box::new(send(request));
        };
        let answer = self.neighbours.ask(&component, request);
        Box::new(async { Ok((answer.await?, Box::new(async { Ok(()) }) as Driver)) })
    }
}

async fn send(mut request: Request<WasiBody>) -> Result<(Response<WasiBody>, Driver), Error> {
    let uri = request.uri().clone();
    if uri.scheme_str() != Some("http") {
        return Err(Error::InternalError(Some("the stand-in for Spin speaks no TLS, only http".to_owned())));
    }
    let stream = TcpStream::connect(address(&uri)?).await.map_err(Error::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    // The connection has to be driven before there is an answer, so that it cannot be left to the caller.
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let end = async { driver.await.map_err(|_| Error::ConnectionTerminated)?.map_err(Error::Hyper) };
    Ok((response.map(|body| body.map_err(Error::Hyper).boxed_unsync()), Box::new(end)))
}

fn address(uri: &Uri) -> Result<(String, u16), Error> {
    let host = uri.host().ok_or(Error::HttpRequestUriInvalid)?;
    Ok((host.trim_matches(['[', ']']).to_owned(), uri.port_u16().unwrap_or(80)))
}
