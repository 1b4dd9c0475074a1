//! Worldgen: makes the first chunks of a world. A job: it ends when they are there, and may be run again at any time.

mod generate;
mod report;

use std::io;
use std::net::SocketAddr;

use fortia_common::boot::Boot;
use fortia_common::server::Server;
use fortia_log::Log;
use fortia_rdb::RdbError;
use fortia_rdb::control::ControlDb;
use fortia_rdb::world::World;
use fortia_rest::{Admin, Readiness, Registry};
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Why a world was not made.
#[derive(Debug, thiserror::Error)]
pub enum WorldgenError {
    /// The shards hold a world of another seed or size.
    #[error(
        "the shards hold a world of seed {seed}, radius {radius} and limit {limit}, not of seed {wanted_seed}, radius \
         {wanted_radius} and limit {wanted_limit}: a world keeps them for life; set spec.world back, or make a new \
         FortiaCluster"
    )]
    OtherWorld {
        /// Seed of the world that is there.
        seed: u64,
        /// Its radius, in chunks.
        radius: u32,
        /// How far it may grow, in chunks.
        limit: u32,
        /// Seed that is configured.
        wanted_seed: u64,
        /// Radius that is configured.
        wanted_radius: u32,
        /// Limit that is configured.
        wanted_limit: u32,
    },
    /// A server refused for good.
    #[error(transparent)]
    Rdb(#[from] RdbError),
    /// The generator panicked.
    #[error("the generator panicked: {0}")]
    Panicked(#[from] tokio::task::JoinError),
    /// Told to stop before the world was made: run it again.
    #[error("told to stop before the world was made; the next run goes on from here")]
    Stopped,
    /// An address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// The admin port failed.
    #[error("the admin port failed: {0}")]
    Admin(io::Error),
}

/// Makes the configured world. Doing it again changes nothing.
///
/// # Errors
/// When another world is there, a server refuses for good, or it is told to stop before the end.
pub async fn run(boot: Boot, log: &Log) -> Result<(), WorldgenError> {
    let mut registry = Registry::default();
    log.register(&mut registry);
    let done = Gauge::default();
    registry.register("fortia_worldgen_chunks", "Chunks made so far", done.clone());
    let admin =
        TcpListener::bind(boot.admin).await.map_err(|error| WorldgenError::Listen(boot.admin, error))?;
    let end = CancellationToken::new();
    let work = async {
        let worked = work(boot, log, &done).await;
        end.cancel();
        worked
    };
    let admin = Admin::new(registry, Readiness::default()).serve(admin, end.clone());
    tokio::try_join!(work, async { admin.await.map_err(WorldgenError::Admin) })?;
    Ok(())
}

async fn work(boot: Boot, log: &Log, done: &Gauge) -> Result<(), WorldgenError> {
    let control = ControlDb::connect(&boot);
    let server =
        Server::start(boot.clone(), control.clone(), log.set_filter()).await.ok_or(WorldgenError::Stopped)?;
    log.follow(server.config());
    let stopping = server.stopping();
    let made = tokio::select! {
        made = make(&boot, &server, &control, done) => made,
        () = stopping.cancelled() => Err(WorldgenError::Stopped),
    };
    server.stop().await;
    made
}

async fn make(boot: &Boot, server: &Server, control: &ControlDb, done: &Gauge) -> Result<(), WorldgenError> {
    let config = server.config().borrow().clone();
    // What a replica lacks may be there: only the primary knows what is still to be made.
    let world = World::connect(boot, server.topology()).primary_only();
    generate::world(&world, control, &config.world, done).await
}
