//! Where the world's keys are: versions, shards, groups, and the phase of a re-sharding. Knows no I/O.

use serde::{Deserialize, Serialize};

/// The function that maps a key's hash to a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Placement {
    /// `xxh3_64(key) mod shards`.
    #[default]
    Modulo,
    /// Jump consistent hash of `xxh3_64(key)`: moves the least keys.
    Jump,
}

/// One version of the database: which shard holds a key of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The n of `v<n>:`.
    pub version: u64,
    /// How many shards.
    pub shards: u32,
    /// How keys are placed on them.
    pub placement: Placement,
}

/// Phase of a re-sharding; see ARCHITECTURE.md, "A re-sharding".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Target groups are brought up, the plan is made; nothing is touched.
    Planned,
    /// Keys are copied to `v<n+1>:`.
    Copying,
    /// Keys written since are copied again.
    CatchingUp,
    /// Every key is compared, both ways.
    Verifying,
    /// The scheduler flips the topology at a barrier.
    Cutover,
    /// `v<n+1>:` serves; `v<n>:` is kept.
    Retaining,
    /// `v<n>:` is unlinked and surplus groups are removed.
    Collecting,
    /// Back to `v<n>:`; what was copied is removed.
    Aborting,
}

impl Phase {
    /// The word used in status, Job names, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Planned => "Planned",
            Phase::Copying => "Copying",
            Phase::CatchingUp => "CatchingUp",
            Phase::Verifying => "Verifying",
            Phase::Cutover => "Cutover",
            Phase::Retaining => "Retaining",
            Phase::Collecting => "Collecting",
            Phase::Aborting => "Aborting",
        }
    }

    /// Whether a target version is being made in this phase.
    pub const fn carries(self) -> bool {
        matches!(self, Phase::Copying | Phase::CatchingUp | Phase::Verifying | Phase::Cutover)
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The Redis servers of one shard, as `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The group's name, e.g. `shard-0`; its guard carries it.
    pub name: String,
    /// Takes reads and writes.
    pub primary: String,
    /// Follow the primary.
    pub replicas: Vec<String>,
}

/// The topology record of the control database: the operator writes it, the scheduler flips it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Topology {
    /// Grows with every change; writers under an older epoch are refused by the guards.
    pub epoch: u64,
    /// Uid of the cluster.
    pub cluster: String,
    /// What is read, and written unless held.
    pub serving: Layout,
    /// What is being made, while a re-sharding runs.
    pub target: Option<Layout>,
    /// What served before, while it is kept so that one can go back: it goes on being noted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Layout>,
    /// Phase of the re-sharding, if one runs.
    pub phase: Option<Phase>,
    /// All shard groups, by index; at least as many as the larger layout needs.
    pub groups: Vec<Group>,
    /// `host:port` of the account database's primary.
    pub auth_db: String,
}

impl Topology {
    /// Whether both serve the same world from the same servers: what was read under one holds under the other.
    pub fn same_world(&self, other: &Topology) -> bool {
        let primaries = |topology: &Topology| {
            let serving = topology.groups.iter().take(topology.serving.shards as usize);
            serving.map(|group| group.primary.clone()).collect::<Vec<_>>()
        };
        self.serving == other.serving && primaries(self) == primaries(other)
    }
}
