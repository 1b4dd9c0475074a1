//! What the operator answers: the authority for layout and primaries, and what people want to see.

use std::fmt;

use fortia_common::records::WorldProgress;
use fortia_common::topology as wire;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rebalance::{FailedRebalance, Plan, Rebalance};
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
    /// Re-shardings that were planned so far.
    pub plans: u64,
    /// The last re-sharding that failed, was aborted or rolled back, until another one or the layout that serves is
    /// wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_rebalance: Option<FailedRebalance>,
    /// How long writes stood still at the last re-sharding, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_pause_ms: Option<u64>,
    /// The re-sharding the annotation `fortia.dev/plan` asks about; nothing of it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// Keys a second that the last re-sharding copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_rate: Option<u64>,
    /// What the shards hold of the version that serves, a few seconds ago; while keys are carried or unlinked, before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// Keys that would move, of all, in percent: to 1, 2, ... 64 shards, placed as they are now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<u32>,
    /// The same with the other placement.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moves_placed_anew: Vec<u32>,
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

/// What all serving shards hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Load {
    /// Keys.
    pub keys: u64,
    /// Memory, in bytes.
    pub bytes: u64,
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

/// Parts of a bar that shows how far something is.
const BAR: u64 = 20;

/// How much is done, in percent and as `[########............]`.
pub(super) fn bar(done: u64, of: u64) -> (u64, String) {
    let part = |whole: u64| done.saturating_mul(whole).checked_div(of).unwrap_or(0).min(whole);
    let (full, left) = (part(BAR) as usize, (BAR - part(BAR)) as usize);
    (part(100), format!("[{}{}]", "#".repeat(full), ".".repeat(left)))
}

impl fmt::Display for World {
    /// A bar for people, like `120 of 289 chunks, 41 % [########............]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let World { chunks, of } = *self;
        let (percent, bar) = bar(chunks, of);
        write!(f, "{chunks} of {of} chunks, {percent} % {bar}")
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
