//! The ticker: owns regions of the world for an epoch and runs the stages of a tick on them, as the leading scheduler
//! orders. It keeps nothing that is not in the shards.

mod commit;
mod cost;
mod epoch;
mod fill;
mod frame;
mod link;
mod lock;
mod metrics;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use fortia_common::boot::Boot;
use fortia_common::server::Server;
use fortia_log::Log;
use fortia_proto::tick::v1::Letter;
use fortia_rdb::control::ControlDb;
use fortia_rdb::world::World;
use fortia_rest::{Admin, Readiness, Registry};
use fortia_world::step::Territory;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::frame::Runner;
use crate::link::{FOLLOWS, Link};
use crate::metrics::Metrics;

/// Why a ticker cannot run.
#[derive(Debug, thiserror::Error)]
pub enum TickerError {
    /// An address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// The admin port failed.
    #[error("the admin port failed: {0}")]
    Admin(io::Error),
}

/// Adds letters of stage observe that no unit has written: traffic for measurements, made from the number of the tick and
/// the territory after its own observe.
pub type Traffic = Arc<dyn Fn(u64, &Territory, &mut Vec<Letter>) + Send + Sync>;

/// Runs a ticker until it is told to stop. Dropping the future ends it at once, as a crash would.
///
/// # Errors
/// When an address cannot be listened on, or the admin port fails.
pub async fn run(boot: Boot, log: &Log) -> Result<(), TickerError> {
    run_under(boot, log, None).await
}

/// As [`run`], under traffic beside what the units do. For measurements only.
///
/// # Errors
/// As [`run`].
pub async fn run_under(boot: Boot, log: &Log, traffic: Option<Traffic>) -> Result<(), TickerError> {
    let mut registry = Registry::default();
    log.register(&mut registry);
    let metrics = Metrics::register(&mut registry);
    let readiness = Readiness::needs(&[FOLLOWS]);
    let admin =
        TcpListener::bind(boot.admin).await.map_err(|error| TickerError::Listen(boot.admin, error))?;
    let end = CancellationToken::new();
    let work = async {
        work(boot, log, metrics, readiness.clone(), traffic).await;
        end.cancel();
        Ok(())
    };
    let admin = Admin::new(registry, readiness.clone()).serve(admin, end.clone());
    tokio::try_join!(work, async { admin.await.map_err(TickerError::Admin) })?;
    Ok(())
}

async fn work(boot: Boot, log: &Log, metrics: Metrics, readiness: Readiness, traffic: Option<Traffic>) {
    let control = ControlDb::connect(&boot);
    let Some(server) = Server::start(boot.clone(), control.clone(), log.set_filter()).await else { return };
    log.follow(server.config());
    // A tick computed from a replica that fell behind would be committed over newer bytes.
    let world = World::connect(&boot, server.topology()).primary_only();
    let link = Link {
        instance: boot.instance,
        control,
        runner: Runner::new(world, server.topology(), server.config(), metrics.clone(), traffic),
        metrics,
        readiness,
        stop: server.stopping(),
    };
    link.run().await;
    server.stop().await;
}
