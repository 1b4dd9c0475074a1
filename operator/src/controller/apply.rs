//! Applies objects server-side, in order, and only when they changed, somebody touched them, or they have not been applied for
//! a while.

use std::time::Instant;

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};

use super::observe::Observed;
use super::owned::Applied;
use super::reconcile::Error;
use super::validate::Plan;
use super::{Context, MANAGER};
use crate::build::{Kind, Object};

/// Applies all objects that need it. One that is refused does not keep the others back; the first refusal is told.
pub(super) async fn apply(
    context: &Context,
    plan: &Plan,
    seen: &Observed,
    objects: &[Object],
) -> Result<(), Error> {
    let mut refused = None;
    for object in objects {
        if holds(context, plan, object).await && !is_missing(object, seen) {
            continue;
        }
        let params = PatchParams::apply(MANAGER).force().validation_strict();
        let patch = Patch::Apply(&object.body);
        let result = match api(context, plan, object.kind).patch(&object.name, &params, &patch).await {
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
        let applied = Applied::now(object, result.resource_version(), Instant::now());
        let mut memory = context.memory.lock().await;
        memory
            .entry(plan.uid.clone())
            .or_default()
            .applied
            .insert((object.kind, object.name.clone()), applied);
    }
    refused.map_or(Ok(()), Err)
}

/// Whether an object is still as it was applied. One that is not is no longer remembered: if it cannot be applied now, it
/// is in the next pass.
async fn holds(context: &Context, plan: &Plan, object: &Object) -> bool {
    let touched = context.touched.take(&plan.names.namespace, object.kind, &object.name);
    let key = (object.kind, object.name.clone());
    let mut memory = context.memory.lock().await;
    let Some(memory) = memory.get_mut(&plan.uid) else { return false };
    let now = Instant::now();
    let holds =
        memory.applied.get(&key).is_some_and(|applied| applied.holds(object, touched.as_deref(), now));
    if !holds {
        memory.applied.remove(&key);
    }
    holds
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
