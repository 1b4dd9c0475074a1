//! The game server: the world over REST. Anyone may look; who is logged in may join and give orders. It keeps no
//! state that matters: any game server answers any request.

mod allowance;
mod app;
mod area;
mod feed;
mod format;
mod history;
mod look;
mod metrics;
mod news;
mod order;
mod play;
mod pulse;
mod read;
mod refusal;
mod session;
mod shapes;
mod ticks;
mod update;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fortia_common::boot::Boot;
use fortia_common::server::{Server, TRUST};
use fortia_log::Log;
use fortia_rdb::accounts::Accounts;
use fortia_rdb::control::ControlDb;
use fortia_rdb::world::World;
use fortia_rest::{Admin, Limits, Readiness, Registry};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::{ActionIds, App};
use crate::feed::Feed;
use crate::metrics::Metrics;
use crate::pulse::Pulse;
use crate::read::Reader;
use crate::session::Sessions;
use crate::ticks::Ticks;

/// What readiness needs, besides: the control database knows of this server, and so it of where the world is.
const REGISTERED: &str = "registered";
/// Time between two looks whether it still does.
const LOOK: Duration = Duration::from_secs(1);

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

/// What is counted: requests, and what the game does.
struct Counters {
    http: fortia_rest::Metrics,
    game: Metrics,
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
    let counters = Counters {
        http: fortia_rest::Metrics::register(&mut registry),
        game: Metrics::register(&mut registry),
    };
    let readiness = Readiness::needs(&["booted", REGISTERED]);
    // The admin port answers first and last, so that probes tell a server that waits from one that hangs.
    let probes = CancellationToken::new();
    let admin = tokio::spawn(Admin::new(registry, readiness.clone()).serve(admin, probes.clone()));

    let control = ControlDb::connect(&boot);
    let ended = match Server::start(boot, control.clone(), log.set_filter()).await {
        Some(server) => serve(server, control, listener, &log, counters, &readiness).await,
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
    control: ControlDb,
    listener: TcpListener,
    log: &Log,
    counters: Counters,
    readiness: &Readiness,
) -> Result<(), RunError> {
    log.follow(server.config());
    let world = World::connect(server.boot(), server.topology()).registered(server.registered());
    let feed = Feed::default();
    let pulse = watch::Sender::new(Pulse::Open);
    let mut known = pulse.subscribe();
    let reader = Reader::new(world.clone(), feed.now(), server.config(), known.clone());
    let ticks = Ticks::new(control, server.topology());
    let following = tokio::spawn(feed.clone().follow(ticks, server.stopping()));
    let telling = tokio::spawn(feed.clone().tell(reader.clone(), server.stopping()));
    tokio::spawn(feed.clone().forget_pauses(server.topology(), server.stopping()));
    feed.begun(&server.stopping()).await;
    tokio::spawn(pulse::follow(world.clone(), server.topology(), pulse, server.stopping()));
    // Nothing is said of the shards before they were asked. An error only says that the server ends.
    let _ = known.changed().await;
    let app = Arc::new(App {
        config: server.config(),
        topology: server.topology(),
        world,
        reader,
        feed,
        pulse: known,
        sessions: Sessions::new(Accounts::connect(server.boot(), server.topology())),
        allowances: Mutex::default(),
        metrics: counters.game,
        stop: server.stopping(),
        action_ids: ActionIds::default(),
    });
    let limits = Limits::default();
    readiness.set("booted", true);
    tokio::spawn(watch_registration(server.registered(), readiness.clone(), server.stopping()));
    let api = fortia_rest::api(app::router(app), &limits, &counters.http);
    let ended = fortia_rest::serve(listener, api, limits, server.stopping()).await;
    readiness.set("booted", false);
    server.stop().await;
    for (task, ended) in [("follow", following.await), ("tell", telling.await)] {
        if let Err(error) = ended {
            tracing::error!(task, %error, "task on the ticks failed");
        }
    }
    Ok(ended?)
}

/// Says whether the server is registered, until `stop`. One that is not is sent no players: it learns of no tick, and in
/// the end not even of where the world is.
async fn watch_registration(
    registered: watch::Receiver<Instant>,
    readiness: Readiness,
    stop: CancellationToken,
) {
    let looks = async {
        loop {
            readiness.set(REGISTERED, registered.borrow().elapsed() < TRUST);
            tokio::time::sleep(LOOK).await;
        }
    };
    stop.run_until_cancelled(looks).await;
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|error| RunError::Listen(address, error))
}
