//! The auth server: accounts, sessions and the list of worlds over REST. Knows nothing of what is in a world.

mod account;
mod attempts;
mod routes;
mod session;
mod worlds;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use fortia_common::boot::Boot;
use fortia_common::server::Server;
use fortia_log::Log;
use fortia_rdb::accounts::Accounts;
use fortia_rdb::control::ControlDb;
use fortia_rest::{Admin, Limits, Metrics, Readiness, Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::routes::App;

/// Why the server ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// A listener broke.
    #[error("listener failed: {0}")]
    Serve(#[from] io::Error),
}

/// Runs the server until SIGTERM or the command drain.
///
/// # Errors
/// When one of its two addresses cannot be listened on.
pub async fn run(boot: Boot) -> Result<(), RunError> {
    let (listener, admin) = (listen(boot.listen).await?, listen(boot.admin).await?);
    run_on(boot, listener, admin).await
}

/// As [`run`], on listeners that are bound already.
///
/// # Errors
/// When a listener breaks.
pub async fn run_on(boot: Boot, listener: TcpListener, admin: TcpListener) -> Result<(), RunError> {
    let log = fortia_log::init(&boot);
    let mut registry = Registry::default();
    log.register(&mut registry);
    let metrics = Metrics::register(&mut registry);
    let readiness = Readiness::needs(&["booted"]);
    // The admin port answers first and last, so that probes tell a server that waits from one that hangs.
    let probes = CancellationToken::new();
    let admin = tokio::spawn(Admin::new(registry, readiness.clone()).serve(admin, probes.clone()));

    let control = ControlDb::connect(&boot);
    let ended = match Server::start(boot, control, log.set_filter()).await {
        Some(server) => serve(server, listener, &log, &metrics, &readiness).await,
        None => Ok(()),
    };
    probes.cancel();
    if let Err(error) = admin.await {
        tracing::error!(%error, "admin port failed");
    }
    log.stop().await;
    ended
}

/// Serves the API until the server is to end.
async fn serve(
    server: Server,
    listener: TcpListener,
    log: &Log,
    metrics: &Metrics,
    readiness: &Readiness,
) -> Result<(), RunError> {
    log.follow(server.config());
    let accounts = Accounts::connect(server.boot(), server.topology());
    let listed = tokio::spawn(worlds::list(accounts.clone(), server.config(), server.stopping()));
    let app = Arc::new(App { accounts, attempts: attempts::Attempts::default() });
    let limits = Limits::default();
    readiness.set("booted", true);
    let api = fortia_rest::api(routes::router(app), &limits, metrics);
    let ended = fortia_rest::serve(listener, api, limits, server.stopping()).await;
    readiness.set("booted", false);
    server.stop().await;
    if let Err(error) = listed.await {
        tracing::error!(%error, "task that lists the world failed");
    }
    Ok(ended?)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|error| RunError::Listen(address, error))
}
