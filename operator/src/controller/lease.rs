//! Leadership by a Lease: one operator acts, the others wait. Knows the Lease, not what leading is for.
//!
//! A Lease has expired when it was seen unchanged for its whole duration on the candidate's own monotonic clock: the
//! time written in it is another machine's, and is for people.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

const NAME: &str = "fortia-operator";
/// A leader that has not renewed for this long is no leader.
const TTL: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_secs(2);

/// Candidate for the Lease.
pub struct Leadership {
    api: Api<Lease>,
    identity: String,
    seen: Mutex<Option<Seen>>,
}

/// A Lease as it was first seen.
struct Seen {
    resource_version: Option<String>,
    since: Instant,
}

impl Leadership {
    /// A candidate with this identity for the Lease in `namespace`.
    pub fn new(client: Client, namespace: &str, identity: &str) -> Leadership {
        Leadership {
            api: Api::namespaced(client, namespace),
            identity: identity.to_owned(),
            seen: Mutex::new(None),
        }
    }

    /// Waits until this process leads; false when `stop` came first.
    pub async fn acquire(&self, stop: &CancellationToken) -> bool {
        let mut told = String::new();
        loop {
            match self.try_hold().await {
                Ok(None) => {
                    tracing::info!(identity = self.identity, "this operator leads");
                    return true;
                }
                Ok(Some(holder)) if told != holder => {
                    tracing::info!(holder, "another operator leads; standing by");
                    told = holder;
                }
                Ok(Some(_)) => {}
                Err(error) => tracing::warn!(%error, "the lease cannot be taken; trying again"),
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = stop.cancelled() => return false,
            }
        }
    }

    /// Renews until `stop` or until leadership is lost.
    pub async fn keep(&self, stop: &CancellationToken) {
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(RENEW) => {}
                () = stop.cancelled() => return,
            }
            match tokio::time::timeout(RENEW, self.try_hold()).await {
                Ok(Ok(None)) => renewed = tokio::time::Instant::now(),
                Ok(Ok(Some(holder))) => {
                    tracing::error!(holder, "leadership lost");
                    return;
                }
                Ok(Err(error)) => tracing::warn!(%error, "the lease cannot be renewed"),
                Err(_) => tracing::warn!("the lease cannot be renewed in time"),
            }
            // Give up before another may take over.
            if renewed.elapsed() > TTL - RENEW {
                tracing::error!("leadership not renewed in time");
                return;
            }
        }
    }

    /// Takes or renews the Lease; the other holder if there is one.
    async fn try_hold(&self) -> Result<Option<String>, kube::Error> {
        let now = Timestamp::now();
        let Some(mut lease) = self.api.get_opt(NAME).await? else {
            let metadata = ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() };
            let spec = Some(held(None, &self.identity, now));
            return match self.api.create(&PostParams::default(), &Lease { metadata, spec }).await {
                Ok(_) => Ok(None),
                Err(error) if is_conflict(&error) => Ok(Some("another".into())),
                Err(error) => Err(error),
            };
        };
        if let Some(holder) = other_holder(lease.spec.as_ref(), &self.identity, self.unchanged(&lease)) {
            return Ok(Some(holder));
        }
        lease.spec = Some(held(lease.spec.as_ref(), &self.identity, now));
        // The resourceVersion read is sent back: whoever was faster wins.
        match self.api.replace(NAME, &PostParams::default(), &lease).await {
            Ok(_) => Ok(None),
            Err(error) if is_conflict(&error) => Ok(Some("another".into())),
            Err(error) => Err(error),
        }
    }

    /// For how long this process has seen the Lease as it is.
    fn unchanged(&self, lease: &Lease) -> Duration {
        let resource_version = lease.metadata.resource_version.clone();
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match seen.as_ref().filter(|seen| seen.resource_version == resource_version) {
            Some(seen) => seen.since.elapsed(),
            None => {
                *seen = Some(Seen { resource_version, since: Instant::now() });
                Duration::ZERO
            }
        }
    }

    /// Gives the Lease back, so that another need not wait for it to expire.
    pub async fn give_back(&self) {
        let Ok(Some(mut lease)) = self.api.get_opt(NAME).await else { return };
        if let Some(spec) = lease.spec.as_mut().filter(|s| s.holder_identity.as_ref() == Some(&self.identity))
        {
            spec.holder_identity = None;
            if let Err(error) = self.api.replace(NAME, &PostParams::default(), &lease).await {
                tracing::warn!(%error, "the lease cannot be given back; it expires by itself");
            }
        }
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// Who holds a live Lease, if it is not this one. `unchanged`: how long the Lease has been seen as it is.
fn other_holder(spec: Option<&LeaseSpec>, identity: &str, unchanged: Duration) -> Option<String> {
    let spec = spec?;
    let holder = spec.holder_identity.clone().filter(|h| !h.is_empty() && h != identity)?;
    let duration = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or_default();
    (unchanged <= Duration::from_secs(duration)).then_some(holder)
}

fn held(old: Option<&LeaseSpec>, identity: &str, now: Timestamp) -> LeaseSpec {
    let mut spec = old.cloned().unwrap_or_default();
    if spec.holder_identity.as_deref() != Some(identity) {
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default() + 1);
        spec.acquire_time = Some(MicroTime(now));
    }
    spec.holder_identity = Some(identity.to_owned());
    spec.lease_duration_seconds = i32::try_from(TTL.as_secs()).ok();
    spec.renew_time = Some(MicroTime(now));
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("time")
    }

    #[test]
    fn a_lease_of_another_is_respected_until_it_was_seen_unchanged_for_its_duration() {
        let second = Duration::from_secs(1);
        // Written by a clock of long ago, which makes no difference.
        let lease = held(None, "a", at(100));
        assert_eq!(other_holder(Some(&lease), "b", Duration::ZERO), Some("a".into()));
        assert_eq!(other_holder(Some(&lease), "b", TTL), Some("a".into()));
        assert_eq!(other_holder(Some(&lease), "b", TTL + second), None);
        assert_eq!(other_holder(Some(&lease), "a", second), None);
    }

    #[test]
    fn a_change_of_leader_is_counted_and_a_renewal_is_not() {
        let first = held(None, "a", at(1));
        let renewed = held(Some(&first), "a", at(2));
        assert_eq!(renewed.lease_transitions, first.lease_transitions);
        assert_ne!(held(Some(&renewed), "b", at(3)).lease_transitions, renewed.lease_transitions);
    }
}
