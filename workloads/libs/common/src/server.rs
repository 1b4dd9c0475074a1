//! The life of a server process: fetch configuration and topology, register with a heartbeat, obey commands,
//! end in order on SIGTERM or drain. Knows no Redis and no HTTP; both are handed in.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::boot::Boot;
use crate::command::{Ack, Action, Command};
use crate::control::Control;
use crate::records::{Config, Instance};
use crate::topology::Topology;

const HEARTBEAT: Duration = Duration::from_secs(3);
const INSTANCE_TTL: Duration = Duration::from_secs(10);
/// How long after its last registration a server may believe the topology it has. While it is registered no version is
/// collected that it follows; this is half of that, so that clocks and slow answers do not matter.
pub const TRUST: Duration = Duration::from_secs(5);
const _: () = assert!(TRUST.as_millis() * 2 <= INSTANCE_TTL.as_millis());
const POLL: Duration = Duration::from_secs(1);
const LISTEN: Duration = Duration::from_secs(5);

/// Changes the log filter of the process; the error says why a filter is refused.
pub type SetLogFilter = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// A server that has booted, is registered and obeys commands.
pub struct Server {
    boot: Boot,
    config: watch::Receiver<Config>,
    topology: watch::Receiver<Topology>,
    registered: watch::Receiver<Instant>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Server {
    /// Waits for configuration and topology, registers the instance and starts to obey commands. Never gives up:
    /// a server may start before its operator has written either. Ends early only by SIGTERM: then `None`.
    pub async fn start<C: Control>(boot: Boot, control: C, set_log_filter: SetLogFilter) -> Option<Server> {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(cancel_on_signal(stop.clone()));
        let first = async {
            // Before the configuration: a reload that is sent while it is read is obeyed, not missed.
            let after = wait_for("commands", || async { control.last_command().await.map(Some) }).await;
            let config = wait_for("configuration", || control.config()).await;
            let topology = wait_for("topology", || control.topology()).await;
            (after, config, topology)
        };
        let (after, config, topology) = tokio::select! {
            all = first => all,
            () = stop.cancelled() => return None,
        };
        tracing::info!(service = %boot.service, instance = %boot.instance, epoch = topology.epoch, "server booted");
        let (config_tx, config) = watch::channel(config);
        let (topology_tx, topology) = watch::channel(topology);
        tasks.spawn(follow_topology(control.clone(), topology_tx, stop.clone()));
        let (registered_tx, registered) = watch::channel(Instant::now());
        let known = (config.clone(), topology.clone());
        tasks.spawn(heartbeat(boot.clone(), control.clone(), known, registered_tx, stop.clone()));
        tasks.spawn(obey(boot.clone(), control, after, config_tx, set_log_filter, stop.clone()));
        Some(Server { boot, config, topology, registered, stop, tasks })
    }

    /// What the process booted from.
    pub fn boot(&self) -> &Boot {
        &self.boot
    }

    /// The configuration, as it changes.
    pub fn config(&self) -> watch::Receiver<Config> {
        self.config.clone()
    }

    /// The topology, as it changes.
    pub fn topology(&self) -> watch::Receiver<Topology> {
        self.topology.clone()
    }

    /// When the control database last took this server's registration, as it goes on.
    pub fn registered(&self) -> watch::Receiver<Instant> {
        self.registered.clone()
    }

    /// Cancelled when the server is to end: stop taking work, finish what runs.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Ends the heartbeat and command tasks and removes the registration. Call after the work has ended.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "server task failed");
            }
        }
        tracing::info!(service = %self.boot.service, instance = %self.boot.instance, "server stopped");
    }
}

async fn cancel_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be handled; only a drain command ends this server in order");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        () = stop.cancelled() => return,
    }
    tracing::info!("told to stop");
    stop.cancel();
}

async fn wait_for<T, E, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    E: std::error::Error,
    F: Future<Output = Result<Option<T>, E>>,
{
    let mut told = false;
    loop {
        match ask().await {
            Ok(Some(found)) => return found,
            Ok(None) if !told => tracing::info!(what, "waiting for the operator to write it"),
            Ok(None) => {}
            Err(error) if !told => {
                tracing::warn!(what, %error, "control database does not answer; trying again")
            }
            Err(_) => {}
        }
        told = true;
        tokio::time::sleep(POLL / 4).await;
    }
}

async fn follow_topology<C: Control>(control: C, known: watch::Sender<Topology>, stop: CancellationToken) {
    let mut answers = true;
    loop {
        // Word of a change ends the wait early; without word the record is read every POLL all the same.
        tokio::select! {
            _ = tokio::time::timeout(POLL, changed_or_wait(&control)) => {}
            () = stop.cancelled() => return,
        }
        match control.topology().await {
            Ok(Some(new)) => {
                answers = true;
                known.send_if_modified(|old| {
                    let newer = new.epoch > old.epoch;
                    if newer {
                        tracing::info!(epoch = new.epoch, version = new.serving.version, phase = ?new.phase, "new topology");
                        *old = new;
                    }
                    newer
                });
            }
            Ok(None) => {}
            Err(error) if answers => {
                answers = false;
                tracing::warn!(%error, "topology cannot be read; keeping the last one");
            }
            Err(_) => {}
        }
    }
}

async fn changed_or_wait<C: Control>(control: &C) {
    if control.topology_changed(POLL).await.is_err() {
        tokio::time::sleep(POLL).await;
    }
}

async fn heartbeat<C: Control>(
    boot: Boot,
    control: C,
    (config, mut topology): (watch::Receiver<Config>, watch::Receiver<Topology>),
    registered: watch::Sender<Instant>,
    stop: CancellationToken,
) {
    loop {
        let asked = Instant::now();
        let instance = Instance {
            service: boot.service,
            instance: boot.instance.clone(),
            address: boot.advertise.clone(),
            topology_epoch: topology.borrow_and_update().epoch,
            config_generation: config.borrow().generation,
        };
        let wait = match control.register(&instance, INSTANCE_TTL).await {
            Ok(()) => {
                registered.send_replace(asked);
                HEARTBEAT
            }
            Err(error) => {
                tracing::warn!(%error, "heartbeat failed");
                POLL
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // A new epoch is told at once: the operator waits for it before it collects the old version.
            Ok(()) = topology.changed() => {}
            () = stop.cancelled() => {
                if let Err(error) = control.deregister(&instance).await {
                    tracing::warn!(%error, "registration cannot be removed; it expires by itself");
                }
                return;
            }
        }
    }
}

/// Obeys commands after stream id `after`.
async fn obey<C: Control>(
    boot: Boot,
    control: C,
    mut after: String,
    config: watch::Sender<Config>,
    set_log_filter: SetLogFilter,
    stop: CancellationToken,
) {
    loop {
        let commands = tokio::select! {
            commands = control.commands(&after, LISTEN) => commands,
            () = stop.cancelled() => return,
        };
        let commands = match commands {
            Ok(commands) => commands,
            Err(error) => {
                tracing::warn!(%error, "commands cannot be read");
                tokio::time::sleep(POLL).await;
                continue;
            }
        };
        for (id, command) in commands {
            after = id;
            if command.is_for(&boot) {
                let error = carry_out(&command, &control, &config, &set_log_filter, &stop).await.err();
                tracing::info!(command = command.id, action = ?command.action, ?error, "command carried out");
                let ack =
                    Ack { id: command.id, service: boot.service, instance: boot.instance.clone(), error };
                if let Err(error) = control.acknowledge(&ack).await {
                    tracing::warn!(command = ack.id, %error, "command cannot be acknowledged");
                }
            }
        }
    }
}

async fn carry_out<C: Control>(
    command: &Command,
    control: &C,
    config: &watch::Sender<Config>,
    set_log_filter: &SetLogFilter,
    stop: &CancellationToken,
) -> Result<(), String> {
    match &command.action {
        Action::Reload => match control.config().await {
            Ok(Some(new)) => {
                config.send_replace(new);
                Ok(())
            }
            Ok(None) => Err("there is no configuration in the control database".into()),
            Err(error) => Err(error.to_string()),
        },
        Action::LogLevel { filter } => set_log_filter(filter),
        Action::Drain => {
            stop.cancel();
            Ok(())
        }
    }
}
