//! Serves a router over TCP: connections, their limits and timeouts, and the orderly end. Knows no route.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::stall::Stall;

/// Bounds on what clients may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// A request's head must arrive within this; also how long an idle connection is kept.
    pub header_timeout: Duration,
    /// The answer's head must be there within this after the request's head; the answer's body may take longer.
    pub request_timeout: Duration,
    /// A client must take some bytes of an answer within this.
    pub stall_timeout: Duration,
    /// Size of a request's body, in bytes, as taken by extractors.
    pub body_bytes: usize,
    /// How long running requests may go on after the stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 1024,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            body_bytes: 1 << 20,
            drain: Duration::from_secs(10),
        }
    }
}

/// Serves `router` (usually made by [`crate::api`]) until `stop`; then takes no new connection and waits
/// `limits.drain` for running requests. Handlers can ask for `ConnectInfo<SocketAddr>`.
///
/// HTTP/1.1 only, on purpose: telling HTTP/2 apart means to read from the connection before any timer runs.
///
/// # Errors
/// When the listener has no local address, i.e. is not usable. Failing connections are not errors of the server.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!(%address, "listening");
    let permits = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    while let Some((stream, peer, permit)) = accept(&listener, &permits, &mut connections, &stop).await {
        connections.spawn(converse(stream, peer, permit, router.clone(), limits.clone(), graceful.watcher()));
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!(%address, cut = connections.len(), "connections did not end in time and are cut");
    }
    connections.shutdown().await;
    tracing::info!(%address, "stopped listening");
    Ok(())
}

/// The next connection; none once `stop` is cancelled. Meanwhile ended connections are reaped.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    connections: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let next = async {
        // The semaphore is never closed.
        let permit = permits.clone().acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => return Some((stream, peer, permit)),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    // Out of file descriptors or memory: existing connections must end first.
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    };
    tokio::pin!(next);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "connection task failed");
                }
            }
            accepted = &mut next => return accepted,
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
    router: Router,
    limits: Limits,
    watcher: Watcher,
) {
    // Answers are written whole; waiting for more only delays them.
    let _ = stream.set_nodelay(true);
    let service = router.map_request(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(64 << 10)
        .serve_connection(
            TokioIo::new(Stall::new(stream, limits.stall_timeout)),
            TowerToHyperService::new(service),
        );
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%peer, %error, "connection ended early");
    }
    drop(permit);
}
