//! What the operator answers: the authority for layout and primaries, and what people want to see.

use std::fmt;

use fortia_common::records::WorldProgress;
use fortia_common::topology as wire;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spec::Placement;

/// State of a FortiaCluster. Layout, epoch, primaries and re-sharding are decided here before anything acts on them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FortiaClusterStatus {
    /// The generation of the spec this is about.
    pub observed_generation: i64,
    /// One word: Pending, Running, or the phase of the re-sharding that runs.
    pub phase: String,
    /// Shards that serve.
    pub shards: u32,
    /// Selects the Redis pods of the shards.
    pub selector: String,
    /// The database version that serves.
    pub version: u64,
    /// What serves, in full; none before the first bring-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Epoch of the topology.
    pub epoch: u64,
    /// The last committed tick.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tick: Option<u64>,
    /// Whether the world has been generated.
    pub world_ready: bool,
    /// How far its generation is; none before it has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub world: Option<World>,
    /// The Redis groups and who leads them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// The re-sharding that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<Rebalance>,
    /// The last re-sharding that failed; not tried again until the spec changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_rebalance: Option<FailedRebalance>,
    /// How long writes stood still at the last re-sharding, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_pause_ms: Option<u64>,
    /// Until when the previous database version is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain_until: Option<Time>,
    /// Ready, Progressing, Degraded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// One version of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Layout {
    /// The n of `v<n>:`.
    pub version: u64,
    /// How many shards.
    pub shards: u32,
    /// How keys are placed.
    pub placement: Placement,
}

impl Layout {
    /// The layout as servers read it.
    pub fn wire(self) -> wire::Layout {
        wire::Layout {
            version: self.version,
            shards: self.shards,
            placement: match self.placement {
                Placement::Modulo => wire::Placement::Modulo,
                Placement::Jump => wire::Placement::Jump,
            },
        }
    }
}

/// How far the generation of the world is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct World {
    /// Chunks of the first radius that are made.
    pub chunks: u64,
    /// Chunks of the first radius.
    pub of: u64,
}

/// Parts of the bar that shows how far the world is.
const BAR: u64 = 20;

impl fmt::Display for World {
    /// A bar for people, like `120 of 289 chunks, 41 % [########............]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let World { chunks, of } = *self;
        let part = |whole: u64| chunks.saturating_mul(whole).checked_div(of).unwrap_or(0).min(whole);
        let (done, left) = (part(BAR) as usize, (BAR - part(BAR)) as usize);
        write!(f, "{chunks} of {of} chunks, {} % [{}{}]", part(100), "#".repeat(done), ".".repeat(left))
    }
}

/// A Redis group and its recorded primary.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Group {
    /// `auth-db`, `control-db` or `shard-<i>`.
    pub name: String,
    /// Name of the pod that is primary by decision.
    pub primary: String,
    /// Uid of that pod when it was last admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_uid: Option<String>,
    /// Run id of its server when it was last admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// How far its admission is.
    pub state: GroupState,
    /// Why it is not admitted, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How far a group's admission is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GroupState {
    /// The primary is recorded; it may still be empty and without a guard.
    #[default]
    Admitting,
    /// The primary has been admitted and holds the guard: from now on an empty server is an error.
    Admitted,
}

/// Phase of a re-sharding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// The plan is made; no key is touched.
    #[default]
    Planned,
    /// Keys are copied.
    Copying,
    /// Keys written since are copied again.
    CatchingUp,
    /// Every key is compared, both ways.
    Verifying,
    /// The scheduler flips the topology.
    Cutover,
    /// The previous version is kept.
    Retaining,
    /// The previous version is unlinked, surplus groups are removed.
    Collecting,
    /// Back to the previous version; what was copied is removed.
    Aborting,
}

impl Phase {
    /// The phase as servers read it.
    pub const fn wire(self) -> wire::Phase {
        match self {
            Phase::Planned => wire::Phase::Planned,
            Phase::Copying => wire::Phase::Copying,
            Phase::CatchingUp => wire::Phase::CatchingUp,
            Phase::Verifying => wire::Phase::Verifying,
            Phase::Cutover => wire::Phase::Cutover,
            Phase::Retaining => wire::Phase::Retaining,
            Phase::Collecting => wire::Phase::Collecting,
            Phase::Aborting => wire::Phase::Aborting,
        }
    }

    /// The word.
    pub const fn as_str(self) -> &'static str {
        self.wire().as_str()
    }
}

impl From<wire::Phase> for Phase {
    fn from(phase: wire::Phase) -> Phase {
        match phase {
            wire::Phase::Planned => Phase::Planned,
            wire::Phase::Copying => Phase::Copying,
            wire::Phase::CatchingUp => Phase::CatchingUp,
            wire::Phase::Verifying => Phase::Verifying,
            wire::Phase::Cutover => Phase::Cutover,
            wire::Phase::Retaining => Phase::Retaining,
            wire::Phase::Collecting => Phase::Collecting,
            wire::Phase::Aborting => Phase::Aborting,
        }
    }
}

/// A re-sharding and how far it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rebalance {
    /// What is being done.
    pub phase: Phase,
    /// Generation of the spec that asked for it.
    pub generation: i64,
    /// What served when it began.
    pub from: Layout,
    /// What is to serve.
    pub to: Layout,
    /// The plan fits into memory and, where asked for, was approved: groups may be made.
    pub accepted: bool,
    /// The target has been shown to servers: keys of it may exist.
    pub opened: bool,
    /// The version that had to go has been unlinked everywhere.
    pub collected: bool,
    /// Keys to carry.
    pub total_keys: u64,
    /// Memory of the source shards when planned, in bytes.
    pub total_bytes: u64,
    /// Keys carried.
    pub keys: u64,
    /// Bytes that went from server to server.
    pub bytes: u64,
    /// Keys compared equal.
    pub verified: u64,
    /// Keys carried, of all, in percent.
    pub percent: u32,
    /// When it was planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// The last tick committed before the topology flipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_tick: Option<u64>,
    /// When the topology flipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turned_at: Option<Time>,
    /// How long writes stood still, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_pause_ms: Option<u64>,
    /// Why it is being aborted for good; none: not aborted, or to plan anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What it is waiting for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A re-sharding that failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FailedRebalance {
    /// Generation of the spec that asked for it.
    pub generation: i64,
    /// Why.
    pub message: String,
}

impl From<WorldProgress> for World {
    fn from(progress: WorldProgress) -> World {
        World { chunks: progress.chunks, of: progress.of }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_of_the_world_is_a_bar() {
        let bar = |chunks, of| World { chunks, of }.to_string();
        assert_eq!(bar(120, 289), "120 of 289 chunks, 41 % [########............]");
        assert_eq!(bar(0, 0), "0 of 0 chunks, 0 % [....................]");
        assert_eq!(bar(289, 289), "289 of 289 chunks, 100 % [####################]");
    }
}
