//! Names and shapes of the control database's records, for the operator and the servers alike. Knows no I/O.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::boot::Service;
use crate::topology::Phase;

/// String: [`crate::topology::Topology`] as JSON. Changed only by the function `fortia_topology`.
pub const TOPOLOGY: &str = "fortia:topology";
/// Channel: announces the epoch of a new topology.
pub const TOPOLOGY_CHANNEL: &str = "fortia:topology";
/// String: [`Config`] as JSON.
pub const CONFIG: &str = "fortia:config";
/// Stream of [`crate::command::Command`], field `json`.
pub const COMMANDS: &str = "fortia:commands";
/// Stream of [`crate::command::Ack`], field `json`.
pub const ACKS: &str = "fortia:acks";
/// Hash `holder`, `address`, `epoch`, `expires` (server's Unix ms): who is the leading scheduler.
pub const LEASE: &str = "fortia:lease:scheduler";
/// String: number of the last committed tick.
pub const COMMITTED: &str = "fortia:committed";
/// Stream, id `<tick>-0`, field `pb`: `fortia.tick.v1.Committed` of the last ticks.
pub const TICKS: &str = "fortia:ticks";
/// String: [`CutoverRecord`] as JSON.
pub const CUTOVER: &str = "fortia:cutover";
/// String: [`ForgottenRecord`] as JSON, while a shard has forgotten something that was committed.
pub const FORGOTTEN: &str = "fortia:forgotten";
/// Hash on every shard: the guard; see ARCHITECTURE.md, "The data plane".
pub const GUARD: &str = "fortia:guard";

/// Key of an instance's [`Instance`] record; expires unless renewed.
pub fn instance_key(service: Service, instance: &str) -> String {
    format!("fortia:instance:{service}:{instance}")
}

/// String: [`WorldProgress`] as JSON.
pub const WORLD_PROGRESS: &str = "fortia:worldgen";

/// Pattern of all instance keys.
pub const INSTANCE_PATTERN: &str = "fortia:instance:*";

/// Key of the [`Progress`] of migrator pod `index` in the re-sharding to `version`.
pub fn progress_key(version: u64, index: u32) -> String {
    format!("fortia:rebalance:{version}:{index}")
}

/// What every server is configured with. Made from the FortiaCluster by the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// The FortiaCluster's generation this was made from.
    pub generation: u64,
    /// The world.
    pub world: WorldConfig,
    /// How tickers keep one editor per chunk.
    pub edit_strategy: EditStrategy,
    /// What a tick waits for before it counts.
    #[serde(default)]
    pub durability: Durability,
    /// Where players reach the game, as written into the list of worlds.
    pub game_address: String,
    /// `http://host:port` of an OTLP/gRPC log receiver; none: logs stay on the terminal.
    pub logs: Option<String>,
    /// Longest time for which the scheduler lets writes stand still to flip a re-sharding.
    #[serde(default = "default_cutover_pause")]
    pub max_cutover_pause_ms: u64,
    /// The committed tick from which the world goes on although a shard has forgotten something.
    #[serde(default)]
    pub accepted_loss: Option<u64>,
}

/// One second: what players take for a slow network.
const fn default_cutover_pause() -> u64 {
    1000
}

/// The world's identity and pace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorldConfig {
    /// Its name.
    pub name: String,
    /// What it is generated from.
    pub seed: u64,
    /// Chunks from -radius to radius are made before the first tick, both ways.
    pub radius: u32,
    /// Chunks from -limit to limit are made when somebody comes near; at least the radius.
    pub limit: u32,
    /// Wanted time between two ticks.
    pub tick_period_ms: u64,
}

/// How one editor per chunk is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EditStrategy {
    /// Edits are sent to the owner of their chunk.
    #[default]
    Queue,
    /// Edits are claims on blocks, made under locks that the shards keep.
    Lock,
}

/// What a tick waits for before it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// The memory of every shard's primary and, where every shard has one, of a replica.
    #[default]
    Memory,
    /// Their disks.
    Disk,
}

/// A running server, as it registers itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Which program.
    pub service: Service,
    /// Its unique name.
    pub instance: String,
    /// `host:port` others reach it at.
    pub address: String,
    /// Epoch of the topology it follows; old versions are collected only when all have moved on.
    pub topology_epoch: u64,
    /// Generation of the configuration it runs with.
    pub config_generation: u64,
}

/// The world stands still: a shard came back without something that was committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForgottenRecord {
    /// The last committed tick.
    pub tick: u64,
    /// Which shard, and what.
    pub why: String,
}

/// The scheduler's last try to flip a re-sharding, or that it flipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CutoverRecord {
    /// The target version this is about.
    pub version: u64,
    /// The last committed tick.
    pub tick: u64,
    /// How many tries there were.
    pub tries: u32,
    /// How long writes stood still in the last of them, in µs: from the freeze to the flip. Writers hear of the flip a moment
    /// later.
    pub pause_us: u64,
    /// Whether it flipped.
    pub flipped: bool,
    /// Why the last try failed.
    #[serde(default)]
    pub why: Option<String>,
    /// Unix time in ms.
    pub at: u64,
}

/// How far one migrator pod is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Its number among those that worked on this source.
    #[serde(default)]
    pub attempt: u64,
    /// Keys its source shard holds; none: not known.
    #[serde(default)]
    pub total_keys: Option<u64>,
    /// Keys copied (or unlinked, when collecting).
    #[serde(default)]
    pub keys: u64,
    /// Those of them that stayed on their server.
    #[serde(default)]
    pub stayed: u64,
    /// Value bytes that went through the migrator.
    #[serde(default)]
    pub bytes: u64,
    /// Keys compared equal, source to target.
    #[serde(default)]
    pub verified: u64,
    /// Keys found different and carried again.
    #[serde(default)]
    pub mended: u64,
    /// Keys written since they were last carried; none: not known.
    #[serde(default)]
    pub lag: Option<u64>,
    /// Epoch at which the source began to note what is written, in the migration of the proof: a proof of another one says
    /// nothing.
    #[serde(default)]
    pub since: u64,
    /// Run ids of the servers the proof was made on, by shard.
    #[serde(default)]
    pub lives: BTreeMap<u32, String>,
    /// What was proven equal.
    #[serde(default)]
    pub proof: Option<Proof>,
    /// Set when all is done.
    #[serde(default)]
    pub done: bool,
}

impl Progress {
    /// Nothing done yet.
    pub fn new(phase: Phase) -> Progress {
        Progress {
            phase,
            attempt: 0,
            total_keys: None,
            keys: 0,
            stayed: 0,
            bytes: 0,
            verified: 0,
            mended: 0,
            lag: None,
            since: 0,
            lives: BTreeMap::new(),
            proof: None,
            done: false,
        }
    }
}

/// Every key of a source was found equal in the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// How many keys.
    pub keys: u64,
    /// Digest of them all, 32 hex digits.
    pub digest: String,
}

/// How far the world is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorldProgress {
    /// Chunks of the first radius that are there.
    pub chunks: u64,
    /// Chunks of the first radius.
    pub of: u64,
}
