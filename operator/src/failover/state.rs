//! What can be seen of a Redis group's servers. Pure.

/// A server's role as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes writes.
    Primary,
    /// As it boots: follows nobody.
    Fenced,
    /// Follows another server.
    ReplicaOf {
        /// Its host.
        host: String,
        /// Whether the link is up.
        link_up: bool,
    },
}

/// The guard on a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Uid of the cluster.
    pub uid: String,
    /// Name of the group.
    pub group: String,
    /// Index of the group.
    pub index: u32,
    /// How much it was told: grows with the data.
    pub watermark: Watermark,
}

/// How much a server was told, by its guard. Parts of commits come first: an epoch or a closed tick may also be raised on a
/// server that has forgotten what was committed before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watermark {
    /// Parts of commits.
    pub parts: u64,
    /// Epoch of the topology.
    pub epoch: u64,
    /// Epoch of the ticks.
    pub tick_epoch: u64,
    /// The last closed tick.
    pub closed: u64,
}

/// A server that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Id of this run of the server.
    pub run_id: String,
    /// Its role.
    pub role: Role,
    /// Still reading its disk.
    pub loading: bool,
    /// Keys it holds.
    pub keys: u64,
    /// Memory used, in bytes.
    pub used_memory: u64,
    /// The part of it that an empty server with these replicas would use.
    pub idle_memory: u64,
    /// Size of its append-only file, in bytes.
    pub file_size: u64,
    /// Its guard.
    pub guard: Option<Guard>,
}

/// A server of a group that should exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name of its pod.
    pub pod: String,
    /// Uid of its pod.
    pub uid: Option<String>,
    /// None: it does not answer.
    pub seen: Option<Seen>,
}
