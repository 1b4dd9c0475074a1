//! What others do to owned objects: an object that somebody deleted or changed is applied again in the pass that its event
//! begins, and the events of the operator's own applies are not taken for that. Knows versions, not what is in them.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};

use super::Context;
use crate::build::names::INSTANCE;
use crate::build::{Kind, Object};
use crate::crd::spec::FortiaCluster;

/// After this long an object is applied again: an event may have been missed.
const AGAIN: Duration = Duration::from_secs(60);

/// An object as it was last applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    hash: u64,
    at: Instant,
    /// What Kubernetes called the result.
    version: Option<String>,
}

impl Applied {
    /// Just now, with this result.
    pub(super) fn now(object: &Object, version: Option<String>, now: Instant) -> Applied {
        Applied { hash: hash(object), at: now, version }
    }

    /// Whether the object is still as it was applied; `touched`: the version of its last event, if one came since the
    /// last look.
    pub(super) fn holds(&self, object: &Object, touched: Option<&str>, now: Instant) -> bool {
        // What is seen is not compared by age: versions are equal or not, and an older event costs an apply at most.
        self.hash == hash(object)
            && now.duration_since(self.at) < AGAIN
            && touched.is_none_or(|version| self.version.as_deref() == Some(version))
    }
}

fn hash(object: &Object) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.body.to_string().hash(&mut hasher);
    hasher.finish()
}

/// Events of owned objects that no pass has looked at yet: the version of each object's last one. Of clusters that are gone
/// a few names stay.
#[derive(Default)]
pub(super) struct Touched(Mutex<HashMap<(String, Kind, String), String>>);

impl Touched {
    /// The object was made, changed or deleted, and had this version then.
    fn saw(&self, namespace: String, kind: Kind, name: String, version: String) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((namespace, kind, name), version);
    }

    /// The version of the object's last event, once.
    pub(super) fn take(&self, namespace: &str, kind: Kind, name: &str) -> Option<String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&(namespace.to_owned(), kind, name.to_owned()))
    }
}

/// Notes the event of an object and names its cluster, whose next pass it begins.
pub(super) fn noted<K>(
    context: Arc<Context>,
    kind: Kind,
) -> impl Fn(K) -> Option<ObjectRef<FortiaCluster>> + Send + Sync + 'static
where
    K: Resource<DynamicType = ()>,
{
    move |object| {
        let cluster = cluster_of(&object)?;
        let (namespace, version) = (object.namespace()?, object.resource_version()?);
        context.touched.saw(namespace, kind, object.name_any(), version);
        Some(cluster)
    }
}

/// The cluster an object belongs to, by its label.
pub(super) fn cluster_of<K: Resource<DynamicType = ()>>(object: &K) -> Option<ObjectRef<FortiaCluster>> {
    let name = object.labels().get(INSTANCE)?;
    Some(ObjectRef::new(name).within(&object.namespace()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(port: u16) -> Object {
        Object { kind: Kind::Service, name: "midgard-game".into(), body: json!({ "port": port }) }
    }

    #[test]
    fn an_object_that_somebody_touched_is_applied_again_and_ones_own_apply_is_no_touch() {
        let (touched, begun) = (Touched::default(), Instant::now());
        let saw = |version: &str| {
            touched.saw("worlds".into(), Kind::Service, "midgard-game".into(), version.into())
        };
        let applied = |version: &str| Applied::now(&service(80), Some(version.into()), begun);
        let holds = |applied: &Applied| {
            let event = touched.take("worlds", Kind::Service, "midgard-game");
            applied.holds(&service(80), event.as_deref(), begun)
        };
        assert!(holds(&applied("7")), "nothing happened");
        saw("7");
        assert!(holds(&applied("7")), "the event of the apply itself");
        // Deleted: the event has a version of its own.
        saw("9");
        assert!(!holds(&applied("7")));
        // Applied anew, and that event comes; several may have come between two looks, and the last one counts.
        saw("9");
        saw("12");
        assert!(holds(&applied("12")));
        assert!(holds(&applied("12")), "an event is looked at once");
    }

    #[test]
    fn what_is_wanted_anew_or_was_applied_long_ago_is_applied_without_any_event() {
        let begun = Instant::now();
        let applied = Applied::now(&service(80), Some("7".into()), begun);
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert!(applied.holds(&service(80), None, after(59)));
        assert!(!applied.holds(&service(80), None, after(60)));
        assert!(!applied.holds(&service(81), None, after(1)));
    }
}
