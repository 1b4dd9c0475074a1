//! Who leads: takes, keeps and gives up the lease in the control database. Knows nothing of what a leader does.

use std::time::Duration;

use fortia_rdb::control::ControlDb;
use fortia_rest::Readiness;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// How long a lease lasts unless it is renewed; a dead leader is followed by another after at most this and a look.
/// A lease that is lost only because a host was busy costs one new epoch, no more.
const TTL: Duration = Duration::from_millis(1500);
/// Time between two renewals.
const RENEW: Duration = Duration::from_millis(400);
/// Time between two looks of a standby.
const LOOK: Duration = Duration::from_millis(200);
/// Readiness: the control database answers.
pub(crate) const FOLLOWS: &str = "control-db";

/// A lease that was taken.
pub(crate) struct Taken {
    /// Grows with every leader.
    pub(crate) epoch: u64,
    /// Reckoned from before it was asked for, so it ends here before it ends for others.
    until: Instant,
}

/// One scheduler's dealings with the lease.
#[derive(Clone)]
pub(crate) struct Candidate {
    control: ControlDb,
    address: String,
    readiness: Readiness,
}

impl Candidate {
    pub(crate) fn new(control: ControlDb, address: String, readiness: Readiness) -> Candidate {
        Candidate { control, address, readiness }
    }

    /// Asks for the lease until it is given, under an epoch newer than `used`: a term never goes on after its end.
    pub(crate) async fn take(&self, used: u64) -> Taken {
        let mut told = None;
        loop {
            let asked = Instant::now();
            match self.control.lease(&self.address, TTL).await {
                Ok(lease) => {
                    self.readiness.set(FOLLOWS, true);
                    if lease.held && lease.epoch == used {
                        self.give_up().await;
                        continue;
                    }
                    if lease.held {
                        return Taken { epoch: lease.epoch, until: asked + TTL };
                    }
                    let leader = Some(lease.address);
                    if leader != told {
                        tracing::info!(leader, "standing by");
                        told = leader;
                    }
                }
                Err(error) => {
                    self.readiness.set(FOLLOWS, false);
                    let trouble = Some(error.to_string());
                    if trouble != told {
                        tracing::warn!(%error, "the lease cannot be asked for; trying again");
                        told = trouble;
                    }
                }
            }
            sleep(LOOK).await;
        }
    }

    /// Renews the lease; returns why it is lost, at the latest when it has run out.
    pub(crate) async fn keep(&self, taken: Taken) -> String {
        let mut until = taken.until;
        loop {
            let asked = Instant::now();
            match timeout_at(until, self.control.lease(&self.address, TTL)).await {
                Ok(Ok(lease)) if lease.held && lease.epoch == taken.epoch => {
                    self.readiness.set(FOLLOWS, true);
                    until = asked + TTL;
                }
                Ok(Ok(lease)) => return format!("{} leads, lease epoch {}", lease.address, lease.epoch),
                Ok(Err(error)) => {
                    self.readiness.set(FOLLOWS, false);
                    tracing::warn!(%error, "the lease is not renewed");
                }
                Err(_) => return "it has run out".into(),
            }
            tokio::select! {
                () = sleep(RENEW) => {}
                () = sleep_until(until) => return "it has run out".into(),
            }
        }
    }

    /// Gives the lease up, so that a standby need not wait for its end.
    pub(crate) async fn give_up(&self) {
        if let Err(error) = self.control.lease(&self.address, Duration::ZERO).await {
            tracing::warn!(%error, "the lease is not given up; it runs out by itself");
        }
    }
}
