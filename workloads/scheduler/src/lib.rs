//! The scheduler: tells tickers when and what to tick, commits ticks, and cuts over between two of them. Any number of
//! schedulers may run; the one with the lease leads.

pub mod assign;
pub mod barrier;
pub mod cutover;
pub mod exchange;
mod lead;
mod lease;
pub mod ledger;
mod letters;
mod metrics;
mod patches;
mod patience;
mod streams;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use fortia_common::boot::Boot;
use fortia_common::failpoint::Failpoints;
use fortia_common::server::Server;
use fortia_log::Log;
use fortia_proto::tick::v1::ticks_server::TicksServer;
use fortia_rdb::control::ControlDb;
use fortia_rdb::migrate::cutover::Cutover;
use fortia_rdb::world::World;
use fortia_rest::{Admin, Readiness, Registry};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use crate::lead::Tools;
use crate::lease::{Candidate, FOLLOWS};
use crate::metrics::Metrics;
use crate::streams::{Happening, Leader, Streams};

/// Largest message of a ticker, in bytes: letters and changed chunks of one stage.
const MESSAGE: usize = 64 << 20;
/// Happenings that may wait for the leader.
const HAPPENINGS: usize = 1024;
/// Longest time for a tick to end after the order to stop, and for streams to close after that.
const STOP: Duration = Duration::from_secs(5);
/// A ticker's host that is silent for this long is taken for gone.
const SILENCE: Duration = Duration::from_secs(3);

/// Why a scheduler cannot run.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// An address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// Tickers can no longer be served.
    #[error("tickers can no longer be served: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// The admin port failed.
    #[error("the admin port failed: {0}")]
    Admin(io::Error),
}

/// Runs a scheduler until it is told to stop. Dropping the future ends it at once, as a crash would.
///
/// # Errors
/// When an address cannot be listened on, or serving fails.
pub async fn run(boot: Boot, log: &Log) -> Result<(), SchedulerError> {
    run_with(boot, log, Failpoints::default()).await
}

/// As [`run`], with points at which a test can make it fail.
///
/// # Errors
/// As [`run`].
pub async fn run_with(mut boot: Boot, log: &Log, failpoints: Failpoints) -> Result<(), SchedulerError> {
    let mut registry = Registry::default();
    log.register(&mut registry);
    let metrics = Metrics::register(&mut registry);
    let readiness = Readiness::needs(&[FOLLOWS]);
    let admin = bind(boot.admin).await?;
    let listener = bind(boot.listen).await?;
    if boot.listen.port() == 0 {
        boot.advertise =
            listener.local_addr().map_err(|e| SchedulerError::Listen(boot.listen, e))?.to_string();
    }
    let end = CancellationToken::new();
    let work = async {
        let worked = work(boot, log, metrics, readiness.clone(), listener, failpoints).await;
        end.cancel();
        worked
    };
    let admin = Admin::new(registry, readiness.clone()).serve(admin, end.clone());
    tokio::try_join!(work, async { admin.await.map_err(SchedulerError::Admin) })?;
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, SchedulerError> {
    TcpListener::bind(address).await.map_err(|error| SchedulerError::Listen(address, error))
}

async fn work(
    boot: Boot,
    log: &Log,
    metrics: Metrics,
    readiness: Readiness,
    listener: TcpListener,
    failpoints: Failpoints,
) -> Result<(), SchedulerError> {
    let control = ControlDb::connect(&boot);
    let Some(server) = Server::start(boot.clone(), control.clone(), log.set_filter()).await else {
        return Ok(());
    };
    log.follow(server.config());
    let candidate = Candidate::new(control.clone(), boot.advertise.clone(), readiness);
    let tools = Tools {
        control,
        world: World::connect(&boot, server.topology()),
        cutover: Cutover::new(&boot),
        failpoints,
        boot,
        topology: server.topology(),
        config: server.config(),
        metrics,
        stop: server.stopping(),
    };
    let (leader, follows) = watch::channel(None);
    let closed = CancellationToken::new();
    let schedule = async {
        schedule(&tools, &candidate, leader).await;
        closed.cancel();
        Ok(())
    };
    tokio::try_join!(schedule, serve(listener, follows, closed.clone()))?;
    server.stop().await;
    Ok(())
}

/// Serves tickers until `closed`, and then for a moment while streams end.
async fn serve(
    listener: TcpListener,
    leader: Leader,
    closed: CancellationToken,
) -> Result<(), SchedulerError> {
    let ticks = TicksServer::new(Streams::new(leader))
        .max_decoding_message_size(MESSAGE)
        .max_encoding_message_size(MESSAGE);
    // Frames are small and waited for: a moment of Nagle's is the whole of an empty stage.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(SILENCE))
        .http2_keepalive_timeout(Some(SILENCE))
        .add_service(ticks)
        .serve_with_incoming_shutdown(incoming, closed.clone().cancelled_owned());
    tokio::select! {
        served = serving => Ok(served?),
        () = async { closed.cancelled().await; tokio::time::sleep(STOP).await } => Ok(()),
    }
}

/// Leads whenever it has the lease, until told to stop.
async fn schedule(
    tools: &Tools,
    candidate: &Candidate,
    leader: watch::Sender<Option<mpsc::Sender<Happening>>>,
) {
    let mut used = 0;
    loop {
        let taken = tokio::select! {
            taken = candidate.take(used) => taken,
            () = tools.stop.cancelled() => return,
        };
        let (epoch, (happen, happenings)) = (taken.epoch, mpsc::channel(HAPPENINGS));
        used = epoch;
        leader.send_replace(Some(happen));
        tools.metrics.leads.set(1);
        let led = tokio::select! {
            led = lead::lead(tools, epoch, happenings) => led.map_err(|error| error.to_string()),
            lost = candidate.keep(taken) => Err(lost),
            () = async { tools.stop.cancelled().await; tokio::time::sleep(STOP).await } => Ok(()),
        };
        leader.send_replace(None);
        tools.metrics.resigned();
        match led {
            Ok(()) => {
                tracing::info!(lease = epoch, "leads no longer");
                candidate.give_up().await;
                return;
            }
            Err(reason) => tracing::warn!(lease = epoch, reason, "leads no longer: the lease is lost"),
        }
    }
}
