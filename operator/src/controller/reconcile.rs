//! One pass over one FortiaCluster: observe, validate, build, apply, status.

use std::sync::Arc;
use std::time::Duration;

use fortia_common::failpoint::Failed;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;

use super::decide::{Decision, decide};
use super::observe::{Observed, observe};
use super::records::RecordError;
use super::validate::{Plan, validate};
use super::{Context, act, apply, authority, cleanup, status};
use crate::build::{self, Kind, secrets};
use crate::crd::spec::FortiaCluster;
use crate::crd::status::FortiaClusterStatus;
use crate::failover::redis::RedisFailed;
use crate::rebalance::order::act_then_record;
use crate::rebalance::phase::Step;

const AT_ONCE: Duration = Duration::from_millis(50);
/// While keys are carried: how often people are told, and the most a flip is noticed late.
const CARRYING: Duration = Duration::from_millis(500);
const BUSY: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(5);

/// Why a pass ended early. The next one begins anew.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Kubernetes refused or did not answer.
    #[error("kubernetes: {}", said(.0))]
    Kube(#[from] kube::Error),
    /// Kubernetes refused an object that is wanted.
    #[error("{kind:?} {name} is refused: {}", said(source))]
    Refused {
        /// Kind of the object.
        kind: Kind,
        /// Its name.
        name: String,
        /// What Kubernetes said.
        source: kube::Error,
    },
    /// A Redis server refused or did not answer.
    #[error(transparent)]
    Redis(#[from] RedisFailed),
    /// A record of the control database.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// An object the operator built is none: a fault of the program.
    #[error("built object: {0}")]
    Build(serde_json::Error),
    /// The system has no random bytes.
    #[error("no random bytes for passwords: {0}")]
    Random(getrandom::Error),
    /// The Secret with the passwords was changed.
    #[error("secret {secret} has no password for user {user}: restore it")]
    Password {
        /// Name of the Secret.
        secret: String,
        /// Redis user.
        user: String,
    },
    /// The Secret with the passwords is gone, the databases are not.
    #[error(
        "secret {0} is gone, but the databases were made with it: restore it; passwords are never made anew"
    )]
    SecretGone(String),
    /// Something that must be asked does not answer.
    #[error("{0} does not answer")]
    Unreachable(&'static str),
    /// A failpoint that a test armed.
    #[error(transparent)]
    Failpoint(#[from] Failed),
    /// A group that was to be removed holds keys.
    #[error("{group} holds {keys} world keys and is not removed")]
    NotEmpty {
        /// The group.
        group: String,
        /// Keys found.
        keys: u64,
    },
}

/// What the API server said, in its words; kube shows all of its answer as the program sees it.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}

/// One pass.
pub(super) async fn reconcile(cluster: Arc<FortiaCluster>, context: Arc<Context>) -> Result<Action, Error> {
    context.metrics.passes.inc();
    let Some(namespace) = cluster.namespace() else { return Ok(Action::await_change()) };
    // Read live: what is decided rests on the authority in status, never on a cache of it.
    let api = context.api::<FortiaCluster>(&namespace);
    let Some(cluster) = api.get_opt(&cluster.name_any()).await? else { return Ok(Action::await_change()) };
    if cluster.metadata.deletion_timestamp.is_some() {
        cleanup::clean_up(&context, &cluster, &namespace).await?;
        return Ok(Action::await_change());
    }
    if cleanup::hold(&context, &cluster, &namespace).await? {
        return Ok(Action::requeue(AT_ONCE));
    }
    let plan = match validate(&cluster, &context.settings) {
        Ok(plan) => plan,
        Err(invalid) => {
            let next = status::refused(&cluster, &invalid, Timestamp::now());
            status::write(&context, &cluster, &namespace, next).await?;
            return Ok(Action::requeue(IDLE));
        }
    };
    pass(&context, &cluster, &plan).await
}

/// The five steps.
async fn pass(context: &Context, cluster: &FortiaCluster, plan: &Plan) -> Result<Action, Error> {
    let recorded = cluster.status.clone().unwrap_or_default();
    let seen = observe(context, plan, &recorded).await?;
    let decision = decide(plan, &recorded, &seen);
    let objects = match &seen.passwords {
        Some(passwords) => build::objects(plan, &authority::groups(&recorded), passwords),
        None => Vec::new(),
    };
    // What Kubernetes refuses must not stop admission, topology and the word to people: the error is kept for the end.
    let applied = match ensure_passwords(context, plan, &recorded, &seen).await {
        Ok(()) => apply::apply(context, plan, &seen, &objects).await,
        Err(error) => Err(error),
    };
    let completed = status::complete(plan, &seen, &decision, applied.as_ref().err());
    let act = act::act(context, plan, &recorded, &seen, &decision);
    let record = |acted: Result<(), Error>| async {
        // A decision rests on what was seen, not on whether its action succeeded; forgetting a re-sharding does not.
        let forgets = matches!(decision.rebalance, Step::Finish(_));
        let next = if acted.is_err() && forgets { recorded.clone() } else { completed };
        let told = status::write(context, cluster, &plan.names.namespace, next.clone()).await?;
        Ok::<_, Error>((acted, next, told))
    };
    let steps = !matches!(decision.rebalance, Step::Idle | Step::Wait(_));
    let failpoints = steps.then_some(&context.failpoints);
    let (acted, next, told) = act_then_record(failpoints, act, record).await?;
    acted?;
    applied?;
    Ok(Action::requeue(pause(&decision, &next, told, seen.passwords.is_some())))
}

async fn ensure_passwords(
    context: &Context,
    plan: &Plan,
    recorded: &FortiaClusterStatus,
    seen: &Observed,
) -> Result<(), Error> {
    if seen.passwords.is_some() {
        return Ok(());
    }
    if !recorded.groups.is_empty() {
        return Err(Error::SecretGone(plan.names.passwords()));
    }
    let passwords = secrets::Passwords::generate().map_err(Error::Random)?;
    apply::create(context, plan, &secrets::passwords(plan, &passwords)).await
}

/// How long until the next pass.
fn pause(decision: &Decision, next: &FortiaClusterStatus, told: bool, has_passwords: bool) -> Duration {
    use crate::failover::step::Step as Group;
    let acted = decision
        .groups
        .iter()
        .any(|(_, s)| matches!(s, Group::Admit { .. } | Group::Record(_) | Group::Confirm { .. }))
        || !decision.rights.is_empty()
        || decision.topology.is_some();
    let carries = next.rebalance.as_ref().is_some_and(|r| r.phase.carries());
    match &decision.rebalance {
        // Progress is news all the time.
        Step::Record(r) if !acted && carries && r.opened && decision.was == Some(r.phase) => CARRYING,
        Step::Idle | Step::Rest { .. } | Step::Wait(_) | Step::Refuse { .. } if !acted && has_passwords => {
            match &next.rebalance {
                _ if told && !carries => AT_ONCE,
                Some(_) if carries => CARRYING,
                Some(_) => BUSY,
                None if next.phase != "Running" => BUSY,
                None => IDLE,
            }
        }
        _ => AT_ONCE,
    }
}

/// After a pass that failed.
pub(super) fn failed(cluster: Arc<FortiaCluster>, error: &Error, context: Arc<Context>) -> Action {
    if matches!(error, Error::Kube(kube::Error::Api(status)) if status.code == 409) {
        // Someone else wrote in between: look again.
        return Action::requeue(AT_ONCE);
    }
    context.metrics.errors.inc();
    tracing::warn!(cluster = cluster.name_any(), %error, "pass failed; trying again");
    Action::requeue(BUSY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn what_kubernetes_refuses_is_told_in_its_words_alone() {
        let status = Status::failure("spec.replicas: Invalid value: -1", "Invalid").with_code(422);
        let source = kube::Error::Api(status.boxed());
        let error = Error::Refused { kind: Kind::Deployment, name: "midgard-game".into(), source };
        assert_eq!(error.to_string(), "Deployment midgard-game is refused: spec.replicas: Invalid value: -1");
    }
}
