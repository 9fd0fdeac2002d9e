//! The server: connections within their limits, and an end that loses no answer.

use std::{io, pin::pin, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use super::{Api, router};

/// Connections at a time; others wait to be accepted. Each has one request under way at most, and its buffers.
const CONNECTIONS_MAX: usize = 1_024;
/// How long a connection may take to send the head of a request, and stay without one.
const HEAD_TIME_MAX: Duration = Duration::from_secs(60);
/// Bytes of what a connection has sent and nobody has read yet, the head of a request included.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// How long answers that are under way may take at the end.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
/// How long to wait when a connection could not be accepted: most likely there are no more file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves an interface until `shutdown` is done. Then no connection is accepted any more, streams end, and answers that
/// are under way have ten seconds.
pub async fn serve(listener: TcpListener, api: Arc<Api>, shutdown: impl Future<Output = ()>) {
    let service = TowerToHyperService::new(router(Arc::clone(&api)));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX).max_buf_size(BUFFER_BYTES_MAX);
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, permit) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&listener, &connections) => accepted,
        };
        let connection = server.serve_connection(TokioIo::new(stream), service.clone());
        tokio::spawn(drive(connection, graceful.watcher(), permit));
    }
    drop(listener);
    api.stop();
    if timeout(DRAIN_TIME_MAX, graceful.shutdown()).await.is_err() {
        tracing::warn!(seconds = DRAIN_TIME_MAX.as_secs(), "some answers were not done in time");
    }
}

/// The next connection, once there is room for it.
async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = Arc::clone(connections).acquire_owned().await.expect("the server never closes its semaphore");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are small; without it, it is only slower.
                let _ = stream.set_nodelay(true);
                return (stream, permit);
            }
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether the client has gone before it was accepted.
fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn drive(
    connection: http1::Connection<TokioIo<TcpStream>, TowerToHyperService<axum::Router>>,
    watcher: Watcher,
    permit: OwnedSemaphorePermit,
) {
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "connection ended");
    }
    drop(permit);
}
