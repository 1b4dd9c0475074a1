//! The log server: takes log records by OTLP, keeps them in compressed segments, and answers GET /logs. Knows
//! nothing of the game.

pub mod age;
mod api;
pub mod filter;
pub mod folder;
pub mod metrics;
mod otlp;
pub mod record;
pub mod retention;
pub mod segment;
pub mod settings;
pub mod store;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fortia_common::boot::Boot;
use fortia_common::server::Server;
use fortia_rdb::control::ControlDb;
use fortia_rest::{Admin, Limits, Readiness, Registry};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use folder::FolderError;
use settings::Settings;
use store::Store;

/// How often what was received is brought to the disk; a crash of the machine loses no more than this.
const SYNC: Duration = Duration::from_secs(1);

/// Why the server ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// A listener broke.
    #[error("listener failed: {0}")]
    Serve(#[from] io::Error),
    /// The data folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// Runs the server until SIGTERM or the command drain. Records are taken from the start, before the control
/// database answers: what goes wrong there must be in the logs.
///
/// # Errors
/// When the data folder cannot be used or an address cannot be listened on.
pub async fn run(boot: Boot, settings: Settings) -> Result<(), RunError> {
    let log = fortia_log::init(&boot);
    let mut registry = Registry::default();
    log.register(&mut registry);
    let readiness = Readiness::needs(&["receiving"]);
    let receiver = Receiver::start(&boot, &settings, &mut registry).await?;
    log.ship_to(Some(&format!("http://127.0.0.1:{}", receiver.otlp.port())));
    readiness.set("receiving", true);
    let probes = CancellationToken::new();
    let admin = Admin::new(registry, readiness.clone()).serve(listen(boot.admin).await?, probes.clone());
    let admin = tokio::spawn(admin);

    let control = ControlDb::connect(&boot);
    if let Some(server) = Server::start(boot, control, log.set_filter()).await {
        server.stopping().cancelled().await;
        readiness.set("receiving", false);
        server.stop().await;
    }
    // The last records of this server go to itself: it ends after its log.
    log.stop().await;
    let ended = receiver.stop().await;
    probes.cancel();
    if let Err(error) = admin.await {
        tracing::error!(%error, "admin port failed");
    }
    ended
}

/// The parts that take and serve records; no control database is needed for them.
pub struct Receiver {
    /// Where OTLP is received.
    pub otlp: SocketAddr,
    /// Where GET /logs is answered.
    pub http: SocketAddr,
    store: Arc<Store>,
    stop: CancellationToken,
    tasks: [JoinHandle<io::Result<()>>; 3],
}

impl Receiver {
    /// Opens the store and starts to receive and to answer.
    ///
    /// # Errors
    /// As [`run`].
    pub async fn start(
        boot: &Boot,
        settings: &Settings,
        registry: &mut Registry,
    ) -> Result<Receiver, RunError> {
        let metrics = metrics::Metrics::register(registry);
        let (data, retention) = (settings.data.clone(), settings.retention);
        let store = tokio::task::spawn_blocking(move || Store::open(&data, retention, metrics, now()));
        let store = Arc::new(store.await.map_err(io::Error::other)??);
        let stop = CancellationToken::new();
        let (otlp, http) = (listen(settings.otlp).await?, listen(boot.listen).await?);
        let addresses = (otlp.local_addr()?, http.local_addr()?);
        let limits = Limits::default();
        let requests = fortia_rest::Metrics::register(registry);
        let router = fortia_rest::api(api::router(store.clone(), stop.clone()), &limits, &requests);
        let tasks = [
            tokio::spawn(otlp::receive(otlp, store.clone(), stop.clone())),
            tokio::spawn(fortia_rest::serve(http, router, limits, stop.clone())),
            tokio::spawn(keep(store.clone(), stop.clone())),
        ];
        Ok(Receiver { otlp: addresses.0, http: addresses.1, store, stop, tasks })
    }

    /// Finishes what is being received and answered, and brings all to the disk.
    ///
    /// # Errors
    /// When a listener had failed, or the disk does.
    pub async fn stop(self) -> Result<(), RunError> {
        self.stop.cancel();
        for task in self.tasks {
            task.await.map_err(io::Error::other)??;
        }
        let last = tokio::task::spawn_blocking(move || self.store.tick(now()));
        Ok(last.await.map_err(io::Error::other)??)
    }
}

/// Ticks the store until `stop`.
async fn keep(store: Arc<Store>, stop: CancellationToken) -> io::Result<()> {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SYNC) => {}
            () = stop.cancelled() => return Ok(()),
        }
        let ticking = store.clone();
        match tokio::task::spawn_blocking(move || ticking.tick(now())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "records are not brought to the disk"),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|error| RunError::Listen(address, error))
}

/// Unix time in nanoseconds.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
