//! What a FortiaCluster can be asked to be, with defaults and the rules the API server checks.

// KubeSchema derives a public struct inside a function for each checked type.
#![allow(unreachable_pub)]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;
use super::status::FortiaClusterStatus;

/// A voxel world on N Redis shards, with everything that serves and ticks it.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "fortia.dev",
    version = "v1alpha1",
    kind = "FortiaCluster",
    namespaced,
    shortname = "fc",
    category = "fortia",
    derive = "PartialEq",
    status = "FortiaClusterStatus",
    doc = "A voxel world on N Redis shards, with everything that serves and ticks it.",
    scale(
        spec_replicas_path = ".spec.redisShards",
        status_replicas_path = ".status.shards",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Shards", type_ = "integer", json_path = ".status.shards", description = "shards that serve"),
    printcolumn(name = "Version", type_ = "integer", json_path = ".status.version", description = "database version"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Tick", type_ = "integer", json_path = ".status.tick", description = "last committed tick"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name becomes part of Service names: use at most 40 lower-case letters, digits and '-', starting with a letter")
)]
#[serde(rename_all = "camelCase")]
pub struct FortiaClusterSpec {
    /// How many Redis groups hold the world. Edit it, and the living world is re-sharded.
    #[x_kube(
        validation = Rule::new("self >= 1").message("redisShards must be between 1 and 64: a world needs at least one shard"),
        validation = Rule::new("self <= 64").message("redisShards must be between 1 and 64: every server keeps connections to every shard, and more than 64 has not been tried"),
    )]
    pub redis_shards: u32,
    /// How keys are placed on shards.
    #[serde(default)]
    pub sharding: Sharding,
    /// The world's identity and pace.
    #[serde(default)]
    pub world: World,
    /// Where images come from; the operator's own settings are the default.
    #[serde(default)]
    pub images: Images,
    /// The Redis groups.
    #[serde(default)]
    pub redis: Redis,
    /// Account servers.
    #[serde(default)]
    pub auth: Server,
    /// Game servers.
    #[serde(default)]
    pub game: Game,
    /// Ticking servers.
    #[serde(default)]
    pub ticker: Ticker,
    /// The scheduler and its standbys.
    #[serde(default)]
    pub scheduler: Server,
    /// Log servers.
    #[serde(default)]
    pub logserver: Logserver,
    /// How the world is carried to another number of shards.
    #[serde(default)]
    pub rebalancing: Rebalancing,
    /// Pods of the Jobs that make and carry the world.
    #[serde(default)]
    pub jobs: Jobs,
    /// What happens to the volumes when the FortiaCluster is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// How keys are placed on shards.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Sharding {
    /// The function from a key's hash to its shard.
    pub placement: Placement,
}

/// The function from a key's hash to its shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Placement {
    /// Hash modulo shards.
    #[default]
    Modulo,
    /// Jump consistent hash: moves the least keys.
    Jump,
}

impl Placement {
    /// The one that this is not.
    pub const fn other(self) -> Placement {
        match self {
            Placement::Modulo => Placement::Jump,
            Placement::Jump => Placement::Modulo,
        }
    }
}

/// What happens to the volumes when the FortiaCluster is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They are kept.
    #[default]
    Retain,
    /// They are deleted, and the world with them.
    Delete,
}

/// The world's identity and pace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)").message("world.name cannot be changed: the world was made under it; create another FortiaCluster instead"),
    validation = Rule::new("self.seed == oldSelf.seed").message("world.seed cannot be changed: the world was made from it; create another FortiaCluster instead"),
    validation = Rule::new("self.radius == oldSelf.radius").message("world.radius cannot be changed: the world was made with it; create another FortiaCluster instead"),
    validation = Rule::new("has(self.limit) == has(oldSelf.limit) && (!has(self.limit) || self.limit == oldSelf.limit)").message("world.limit cannot be changed: the world was made with it; create another FortiaCluster instead"),
    validation = Rule::new("!has(self.limit) || self.limit >= self.radius").message("world.limit must be at least world.radius: it is the edge of the world"),
)]
#[serde(rename_all = "camelCase")]
pub struct World {
    /// Its name in the list of worlds. Default: the FortiaCluster's name. Cannot be changed.
    #[schemars(length(max = 40), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is generated from. Cannot be changed.
    #[x_kube(validation = Rule::new("self >= 0").message("world.seed must be 0 or greater: use any whole number that is not negative"))]
    #[serde(default = "default_seed")]
    pub seed: i64,
    /// Chunks from -radius to radius are made at first, both ways. Cannot be changed.
    #[x_kube(validation = Rule::new("self >= 1 && self <= 512").message("world.radius must be between 1 and 512 chunks"))]
    #[serde(default = "default_radius")]
    pub radius: i32,
    /// Chunks from -limit to limit are made when somebody comes near: the edge of the world. Default: four times the
    /// radius, but at most 64 chunks beyond it. Cannot be changed.
    #[x_kube(validation = Rule::new("self >= 1 && self <= 640").message("world.limit must be between world.radius and 640 chunks"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<i32>,
    /// Wanted time between two ticks, e.g. `1s` or `250ms`.
    #[schemars(length(max = 16), regex(pattern = "^([0-9]+(ms|s|m))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('50ms') && duration(self) <= duration('1m')").message("world.tickPeriod must be a duration between 50ms and 1m, like 250ms or 1s"))]
    #[serde(default = "default_tick_period")]
    pub tick_period: String,
}

impl Default for World {
    fn default() -> World {
        World {
            name: None,
            seed: default_seed(),
            radius: default_radius(),
            limit: None,
            tick_period: default_tick_period(),
        }
    }
}

/// Where images come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Images {
    /// Prefix of the images: `<repository>/fortia-<service>:<tag>`. Default: the operator's, `ghcr.io/fortia` unless it was
    /// installed with another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Tag of the images. Default: the operator's, which is its own version unless it was installed with another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// When nodes pull them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,
}

/// When nodes pull images. Default: the operator's, `IfNotPresent` unless it was installed with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Never.
    Never,
}

impl PullPolicy {
    /// The word Kubernetes uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            PullPolicy::Always => "Always",
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Never => "Never",
        }
    }
}

/// How the pods of one part look.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Pods {
    /// Another image. Default: `fortia-<service>` by `images`; for Redis the operator's, `docker.io/valkey/valkey:8` unless
    /// it was installed with another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Requests and limits of the container, in place of all of the default: requests of 20m CPU and 32Mi memory (Redis:
    /// 20m and 64Mi; migrator: 50m and 64Mi), and a limit of 512Mi memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels a node must have. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// A Kubernetes `Affinity`. Default: replicas of one part prefer different nodes.
    #[schemars(schema_with = "schema::any_object")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<serde_json::Value>,
    /// Taints the pods tolerate. Default: none.
    #[schemars(schema_with = "schema::tolerations")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
}

/// Requests and limits of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// What it is given at least. Default, when there are `limits`: none.
    #[schemars(schema_with = "schema::quantities")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// What it may use at most. Default, when there are `requests`: none.
    #[schemars(schema_with = "schema::quantities")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
}

/// The Redis groups: one for accounts, one for control, one a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Redis {
    /// Replicas beside the primary of each group.
    #[schemars(range(min = 0, max = 5))]
    pub replicas: i32,
    /// The volume of each Redis server.
    pub storage: Storage,
    /// Which programs the image has.
    pub engine: Engine,
    /// The pods; `image` is the Redis image.
    #[serde(flatten)]
    pub pods: Pods,
}

impl Default for Redis {
    fn default() -> Redis {
        Redis { replicas: 1, storage: Storage::default(), engine: Engine::default(), pods: Pods::default() }
    }
}

/// Which programs the Redis image has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Engine {
    /// `valkey-server` and `valkey-cli`, 8 or newer.
    #[default]
    Valkey,
    /// `redis-server` and `redis-cli`, 7.0 or newer.
    Redis,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("isQuantity(string(self.size)) && quantity(string(self.size)).compareTo(quantity('32Mi')) >= 0").message("storage.size must be a quantity of at least 32Mi, like 1Gi"),
    validation = Rule::new("self == oldSelf").message("storage cannot be changed after creation: volumes of a StatefulSet keep their size and class; grow the PersistentVolumeClaims themselves"),
)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Its size.
    #[schemars(schema_with = "schema::quantity")]
    #[serde(default = "default_size")]
    pub size: Quantity,
    /// Its StorageClass. Default: that of the Kubernetes cluster.
    #[schemars(length(max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

impl Default for Storage {
    fn default() -> Storage {
        Storage { size: default_size(), class: None }
    }
}

/// A part that runs a number of equal servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Server {
    /// How many run.
    #[schemars(range(min = 0, max = 100))]
    pub replicas: i32,
    /// The pods.
    #[serde(flatten)]
    pub pods: Pods,
}

impl Default for Server {
    fn default() -> Server {
        Server { replicas: 1, pods: Pods::default() }
    }
}

/// Game servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Game {
    /// How many run.
    #[schemars(range(min = 0, max = 100))]
    pub replicas: i32,
    /// Where players reach the world, as written into the list of worlds: `http://` or `https://`, a host and, where needed,
    /// a port, like `https://play.example.org`. Default: the Service's address inside the cluster.
    #[schemars(schema_with = "schema::address")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The pods.
    #[serde(flatten)]
    pub pods: Pods,
}

impl Default for Game {
    fn default() -> Game {
        Game { replicas: 1, address: None, pods: Pods::default() }
    }
}

/// Ticking servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Ticker {
    /// How many share the world.
    #[schemars(range(min = 0, max = 100))]
    pub replicas: i32,
    /// How one editor per chunk is kept.
    pub edit_strategy: EditStrategy,
    /// What a tick waits for before it counts. With `Disk` every tick waits for the shards' next sync.
    pub durability: Durability,
    /// The pods.
    #[serde(flatten)]
    pub pods: Pods,
}

impl Default for Ticker {
    fn default() -> Ticker {
        Ticker {
            replicas: 2,
            edit_strategy: EditStrategy::Queue,
            durability: Durability::Memory,
            pods: Pods::default(),
        }
    }
}

/// How one editor per chunk is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EditStrategy {
    /// Edits are sent to the owner of their chunk.
    #[default]
    Queue,
    /// Edits are claims on blocks, made under locks that the shards keep.
    Lock,
}

/// What a tick waits for before it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Durability {
    /// The memory of every shard's primary and, where every shard has one, of a replica.
    #[default]
    Memory,
    /// Their disks.
    Disk,
}

/// Log servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Logserver {
    /// How many run; 0: logs stay on the pods' standard output.
    #[schemars(range(min = 0, max = 10))]
    pub replicas: i32,
    /// Another OTLP/gRPC receiver to send logs to, like `http://collector:4317`; without TLS. Default: the log servers of
    /// this FortiaCluster, when there are any.
    #[schemars(schema_with = "schema::receiver")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The volume of each log server.
    pub storage: Storage,
    /// The pods.
    #[serde(flatten)]
    pub pods: Pods,
}

impl Default for Logserver {
    fn default() -> Logserver {
        Logserver { replicas: 1, endpoint: None, storage: Storage::default(), pods: Pods::default() }
    }
}

/// How the world is carried to another number of shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rebalancing {
    /// How many source shards are carried at once.
    #[schemars(range(min = 1, max = 64))]
    #[serde(default = "default_parallelism")]
    pub parallelism: i32,
    /// How long the previous database version is kept, e.g. `1h`.
    #[schemars(length(max = 16), regex(pattern = "^([0-9]+(ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('0s') && duration(self) <= duration('720h')").message("rebalancing.retainPreviousVersion must be a duration of at most 720h, like 1h or 10s"))]
    #[serde(default = "default_retain")]
    pub retain_previous_version: String,
    /// The longest pause of writes at the flip, e.g. `1s`. A flip that would take longer is not made: writes go on, and
    /// it is tried again later.
    #[schemars(length(max = 16), regex(pattern = "^([0-9]+(ms|s|m))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10ms') && duration(self) <= duration('10m')").message("rebalancing.maxCutoverPause must be a duration between 10ms and 10m, like 1s"))]
    #[serde(default = "default_pause")]
    pub max_cutover_pause: String,
    /// Carrying makes room for players when one read of a shard takes longer than this, e.g. `2ms`; `0s`: never.
    #[schemars(length(max = 16), regex(pattern = "^([0-9]+(ms|s))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('0s') && duration(self) <= duration('10s')").message("rebalancing.readLatency must be a duration of at most 10s, like 2ms, or 0s"))]
    #[serde(default = "default_read_latency")]
    pub read_latency: String,
    /// Wait in phase Planned for the annotation `fortia.dev/approve` with the ticket of `status.rebalance.plan`.
    #[serde(default)]
    pub require_approval: bool,
}

impl Default for Rebalancing {
    fn default() -> Rebalancing {
        Rebalancing {
            parallelism: default_parallelism(),
            retain_previous_version: default_retain(),
            max_cutover_pause: default_pause(),
            read_latency: default_read_latency(),
            require_approval: false,
        }
    }
}

/// Pods of Jobs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Jobs {
    /// The Job that makes the first chunks.
    pub worldgen: Pods,
    /// The Jobs that carry and collect keys.
    pub migrator: Pods,
}

fn default_seed() -> i64 {
    1
}

fn default_radius() -> i32 {
    8
}

fn default_tick_period() -> String {
    "1s".into()
}

fn default_size() -> Quantity {
    Quantity("1Gi".into())
}

fn default_parallelism() -> i32 {
    2
}

fn default_retain() -> String {
    "1h".into()
}

fn default_pause() -> String {
    "1s".into()
}

fn default_read_latency() -> String {
    "2ms".into()
}
