//! Names, labels and addresses of everything a cluster consists of. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

/// Port of every Redis server.
pub const REDIS_PORT: u16 = 6379;
/// Label with the cluster's name.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// Label with the part a pod belongs to.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Label with the Redis group of a pod.
pub const GROUP: &str = "fortia.dev/group";
/// Label with the kind of a Redis group: `auth`, `control` or `shard`.
pub const KIND: &str = "fortia.dev/kind";
/// Label the operator derives from status: `primary` or `replica`. Never an authority.
pub const ROLE: &str = "fortia.dev/role";
/// Selects what the operator made.
pub const MANAGED: &str = "app.kubernetes.io/managed-by=fortia-operator";

/// A Redis group of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupId {
    /// Accounts.
    Auth,
    /// Configuration, topology, leases.
    Control,
    /// One shard of the world.
    Shard(u32),
}

impl GroupId {
    /// The kind, as in label and ACL file.
    pub const fn kind(self) -> &'static str {
        match self {
            GroupId::Auth => "auth",
            GroupId::Control => "control",
            GroupId::Shard(_) => "shard",
        }
    }

    /// Index in the guard: the shard's, 0 for the others.
    pub const fn index(self) -> u32 {
        match self {
            GroupId::Shard(index) => index,
            GroupId::Auth | GroupId::Control => 0,
        }
    }

    /// Reads the name written by `Display`.
    pub fn parse(name: &str) -> Option<GroupId> {
        match name {
            "auth-db" => Some(GroupId::Auth),
            "control-db" => Some(GroupId::Control),
            other => other.strip_prefix("shard-")?.parse().ok().map(GroupId::Shard),
        }
    }

    /// The two databases and the shards 0 to `shards`-1.
    pub fn all(shards: u32) -> Vec<GroupId> {
        [GroupId::Control, GroupId::Auth].into_iter().chain((0..shards).map(GroupId::Shard)).collect()
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupId::Auth => f.write_str("auth-db"),
            GroupId::Control => f.write_str("control-db"),
            GroupId::Shard(index) => write!(f, "shard-{index}"),
        }
    }
}

/// Names of one cluster's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The FortiaCluster's name.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
}

impl Names {
    /// `<cluster>-<part>`.
    pub fn of(&self, part: impl fmt::Display) -> String {
        format!("{}-{part}", self.cluster)
    }

    /// The headless Service of a group's pods.
    pub fn headless(&self, group: GroupId) -> String {
        format!("{}-{group}-nodes", self.cluster)
    }

    /// A pod of a group.
    pub fn pod(&self, group: GroupId, ordinal: i32) -> String {
        format!("{}-{group}-{ordinal}", self.cluster)
    }

    /// DNS name of a pod of a group.
    pub fn host(&self, group: GroupId, pod: &str) -> String {
        format!("{pod}.{}.{}.svc", self.headless(group), self.namespace)
    }

    /// `host:port` of a pod of a group.
    pub fn address(&self, group: GroupId, pod: &str) -> String {
        format!("{}:{REDIS_PORT}", self.host(group, pod))
    }

    /// Secret with one password a Redis user.
    pub fn passwords(&self) -> String {
        self.of("redis")
    }

    /// Secret with the users' rights as a server boots with them.
    pub fn acl(&self) -> String {
        self.of("redis-acl")
    }

    /// ConfigMap with the servers' configuration.
    pub fn valkey(&self) -> String {
        self.of("valkey")
    }

    /// The Job that carries keys to a version.
    pub fn migrate(&self, version: u64) -> String {
        format!("{}-v{version}-migrate", self.cluster)
    }

    /// The Job that unlinks a version.
    pub fn collect(&self, version: u64) -> String {
        format!("{}-v{version}-collect", self.cluster)
    }

    /// What selects the pods of a part.
    pub fn selector(&self, component: &str) -> Value {
        json!({ INSTANCE: self.cluster, COMPONENT: component })
    }

    /// What selects the pods of a group.
    pub fn group_selector(&self, group: GroupId) -> Value {
        json!({ INSTANCE: self.cluster, GROUP: group.to_string() })
    }

    /// Labels of an object of a part.
    pub fn labels(&self, component: &str) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/name", "fortia"),
            (INSTANCE, self.cluster.as_str()),
            (COMPONENT, component),
            ("app.kubernetes.io/managed-by", "fortia-operator"),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
    }

    /// Labels of an object of a Redis group.
    pub fn group_labels(&self, group: GroupId) -> BTreeMap<String, String> {
        let mut labels = self.labels("redis");
        labels.insert(GROUP.into(), group.to_string());
        labels.insert(KIND.into(), group.kind().into());
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_name_is_read_back() {
        for group in GroupId::all(3) {
            assert_eq!(GroupId::parse(&group.to_string()), Some(group));
        }
        assert_eq!(GroupId::parse("shard-x"), None);
    }
}
