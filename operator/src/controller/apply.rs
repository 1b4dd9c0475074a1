//! Applies objects server-side, in order, and only when they changed or have not been applied for a while.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};

use super::observe::Observed;
use super::reconcile::Error;
use super::validate::Plan;
use super::{Context, MANAGER};
use crate::build::{Kind, Object};

/// After this long an object is applied again, in case someone changed or removed it.
const AGAIN: Duration = Duration::from_secs(60);

/// Applies all objects that need it. One that is refused does not keep the others back; the first refusal is told.
pub(super) async fn apply(
    context: &Context,
    plan: &Plan,
    seen: &Observed,
    objects: &[Object],
) -> Result<(), Error> {
    let mut refused = None;
    for object in objects {
        let key = (object.kind, object.name.clone());
        let hash = hash(object);
        let fresh = {
            let memory = context.memory.lock().await;
            let applied = memory.get(&plan.uid).and_then(|m| m.applied.get(&key));
            applied.is_some_and(|(last, when)| *last == hash && when.elapsed() < AGAIN)
        };
        if fresh && !is_missing(object, seen) {
            continue;
        }
        let params = PatchParams::apply(MANAGER).force().validation_strict();
        let patch = Patch::Apply(&object.body);
        match api(context, plan, object.kind).patch(&object.name, &params, &patch).await {
            Err(source @ kube::Error::Api(_)) => {
                refused.get_or_insert(Error::Refused {
                    kind: object.kind,
                    name: object.name.clone(),
                    source,
                });
                continue;
            }
            other => other?,
        };
        let mut memory = context.memory.lock().await;
        memory.entry(plan.uid.clone()).or_default().applied.insert(key, (hash, Instant::now()));
    }
    refused.map_or(Ok(()), Err)
}

/// Creates an object that is never changed; one that is there already is left as it is.
pub(super) async fn create(context: &Context, plan: &Plan, object: &Object) -> Result<(), Error> {
    let body: DynamicObject = serde_json::from_value(object.body.clone()).map_err(Error::Build)?;
    match api(context, plan, object.kind).create(&PostParams::default(), &body).await {
        Ok(_) => {
            tracing::info!(cluster = plan.names.cluster, kind = ?object.kind, name = object.name, "created");
            Ok(())
        }
        Err(kube::Error::Api(error)) if error.code == 409 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Deletes an object, if it is there.
pub(super) async fn delete(
    context: &Context,
    plan: &Plan,
    kind: Kind,
    name: &str,
    params: &DeleteParams,
) -> Result<(), Error> {
    if let Some(memory) = context.memory.lock().await.get_mut(&plan.uid) {
        memory.applied.remove(&(kind, name.to_owned()));
    }
    match api(context, plan, kind).delete(name, params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn api(context: &Context, plan: &Plan, kind: Kind) -> Api<DynamicObject> {
    Api::namespaced_with(context.client.clone(), &plan.names.namespace, &kind.resource())
}

fn is_missing(object: &Object, seen: &Observed) -> bool {
    match object.kind {
        Kind::StatefulSet => !seen.sets.contains_key(&object.name),
        Kind::Deployment => !seen.deployments.contains_key(&object.name),
        _ => false,
    }
}

fn hash(object: &Object) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.body.to_string().hash(&mut hasher);
    hasher.finish()
}
