//! Everything that can go wrong with a Redis server of Fortia, as one type. Knows the first words of refusals.

/// Why a server did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RdbError {
    /// The server is not the one it should be: another cluster's, another group's, or an empty one.
    #[error("server {address} is not {expected}: {found}")]
    Foreign {
        /// Who answered.
        address: String,
        /// Cluster, group and index that were expected.
        expected: String,
        /// What it says it is.
        found: String,
    },
    /// The caller's topology epoch or tick epoch is older than the guard's.
    #[error("server {address} refused an old epoch: {reason}")]
    Stale {
        /// Who refused.
        address: String,
        /// The two epochs.
        reason: String,
    },
    /// The version is not the one that is written now.
    #[error("server {address} refused the database version: {reason}")]
    WrongVersion {
        /// Who refused.
        address: String,
        /// Which version is writable.
        reason: String,
    },
    /// The version that was read is not, or may not be, one that is kept: what was not found there may be elsewhere.
    #[error("server {address} may not have version {version} any more: {reason}")]
    Outdated {
        /// Who answered.
        address: String,
        /// The version that was read.
        version: u64,
        /// What its guard says.
        reason: String,
    },
    /// The version is held by a re-sharding: nothing writes it for the moment.
    #[error("server {address} is frozen: {reason}")]
    Frozen {
        /// Who refused.
        address: String,
        /// What is frozen.
        reason: String,
    },
    /// More is noted on a source than is carried while it stands still.
    #[error(
        "source {source_shard} has {noted} keys noted: no more than {most} are carried while nobody writes"
    )]
    Behind {
        /// The source.
        source_shard: u32,
        /// Keys noted.
        noted: u64,
        /// How many there may be.
        most: u64,
    },
    /// The server came back without something that was committed: no tick may go on from what it has.
    #[error("server {address} has forgotten what was committed: it has {reason}")]
    Forgotten {
        /// Who came back.
        address: String,
        /// What it has, and what it should have.
        reason: String,
    },
    /// Somebody began to work on the same source later.
    #[error("server {address}: a newer attempt works on this source: {reason}")]
    Attempt {
        /// Who refused.
        address: String,
        /// The two attempts.
        reason: String,
    },
    /// The actions of that tick were already read.
    #[error("actions up to tick {closed} were already read")]
    Closed {
        /// Last tick that takes no more actions.
        closed: u64,
    },
    /// The list of actions of that tick and region takes no more.
    #[error("too many actions in one tick: {reason}")]
    Full {
        /// Which list, and how many it has.
        reason: String,
    },
    /// A compare-and-swap lost: somebody else was first.
    #[error("somebody else was first: {reason}")]
    Conflict {
        /// What is there now.
        reason: String,
    },
    /// The caller no longer holds the lease.
    #[error("not the leader: {reason}")]
    NotLeader {
        /// Who is.
        reason: String,
    },
    /// Both slots of a key are newer than the tick asked for: fetch the committed tick again.
    #[error("{key} has changed twice since tick {tick}: fetch the committed tick again")]
    TooNew {
        /// The key.
        key: String,
        /// The tick asked for.
        tick: u64,
    },
    /// Too few replicas confirmed a write in time.
    #[error("server {address}: {confirmed} of {wanted} replicas confirmed the write")]
    NotReplicated {
        /// The primary.
        address: String,
        /// Replicas wanted.
        wanted: u32,
        /// Replicas that answered.
        confirmed: u32,
    },
    /// A write did not reach the disk in time.
    #[error("server {address} did not write to its disk in time")]
    NotOnDisk {
        /// The primary.
        address: String,
    },
    /// No connection, or no answer in time.
    #[error("server {address} cannot be reached: {reason}")]
    Unreachable {
        /// Who does not answer.
        address: String,
        /// What failed.
        reason: String,
    },
    /// The server answers but takes no such work now: it loads, is a replica, or is fenced by its access rules.
    #[error("server {address} is fenced: {reason}")]
    Fenced {
        /// Who refused.
        address: String,
        /// Its words.
        reason: String,
    },
    /// The server is full: it takes no more until something is taken away or it may use more.
    #[error("server {address} is out of memory: {reason}")]
    OutOfMemory {
        /// Who refused.
        address: String,
        /// Its words.
        reason: String,
    },
    /// The server refused for another reason; asking again does not help.
    #[error("server {address} refused: {reason}")]
    Refused {
        /// Who refused.
        address: String,
        /// Its words.
        reason: String,
    },
    /// A stored value cannot be understood.
    #[error("{key} is corrupt: {reason}")]
    Corrupt {
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The topology does not have what is asked for.
    #[error("topology of epoch {epoch}: {reason}")]
    Topology {
        /// Its epoch.
        epoch: u64,
        /// What is missing.
        reason: String,
    },
    /// The name of an account is taken.
    #[error("account {name} exists")]
    AccountExists {
        /// The name.
        name: String,
    },
    /// No such account, or another password.
    #[error("name or password is wrong")]
    WrongLogin,
    /// Too many passwords are being hashed: try again later.
    #[error("too many logins at once")]
    Busy,
}

impl RdbError {
    /// Whether the same request may succeed a little later, perhaps under a newer topology or tick.
    pub fn is_retryable(&self) -> bool {
        match self {
            RdbError::Stale { .. }
            | RdbError::WrongVersion { .. }
            | RdbError::Frozen { .. }
            | RdbError::Full { .. }
            | RdbError::TooNew { .. }
            | RdbError::NotReplicated { .. }
            | RdbError::NotOnDisk { .. }
            | RdbError::Outdated { .. }
            | RdbError::Behind { .. }
            | RdbError::Unreachable { .. }
            | RdbError::Fenced { .. }
            | RdbError::Topology { .. }
            | RdbError::Busy => true,
            RdbError::Foreign { .. }
            | RdbError::Forgotten { .. }
            | RdbError::Attempt { .. }
            | RdbError::Closed { .. }
            | RdbError::Conflict { .. }
            | RdbError::NotLeader { .. }
            | RdbError::OutOfMemory { .. }
            | RdbError::Refused { .. }
            | RdbError::Corrupt { .. }
            | RdbError::AccountExists { .. }
            | RdbError::WrongLogin => false,
        }
    }

    /// Whether another server of the group may be asked to read instead.
    pub(crate) fn is_down(&self) -> bool {
        matches!(self, RdbError::Unreachable { .. } | RdbError::Fenced { .. })
    }

    pub(crate) fn corrupt(key: impl Into<String>, reason: impl ToString) -> RdbError {
        RdbError::Corrupt { key: key.into(), reason: reason.to_string() }
    }

    /// What a server's refusal means, by its first word.
    pub(crate) fn refusal(address: &str, code: &str, detail: &str) -> RdbError {
        let (address, reason) = (address.to_owned(), detail.to_owned());
        match code {
            "FOREIGN" => {
                RdbError::Foreign { address, expected: "a server of this cluster".into(), found: reason }
            }
            "STALE" => RdbError::Stale { address, reason },
            "VERSION" => RdbError::WrongVersion { address, reason },
            "FROZEN" => RdbError::Frozen { address, reason },
            "ATTEMPT" => RdbError::Attempt { address, reason },
            "FORGOT" => RdbError::Forgotten { address, reason },
            "CLOSED" => match reason.parse() {
                Ok(closed) => RdbError::Closed { closed },
                Err(_) => RdbError::Refused { address, reason: format!("{code} {reason}") },
            },
            "FULL" => RdbError::Full { reason },
            "CONFLICT" => RdbError::Conflict { reason },
            "OOM" => RdbError::OutOfMemory { address, reason },
            "NOTLEADER" => RdbError::NotLeader { reason },
            "WRONGTYPE" => RdbError::Corrupt { key: reason.clone(), reason: "it has another type".into() },
            "READONLY" | "NOPERM" | "NOAUTH" | "WRONGPASS" | "LOADING" | "MASTERDOWN" | "NOREPLICAS"
            | "MISCONF" | "BUSY" | "UNBLOCKED" => {
                RdbError::Fenced { address, reason: format!("{code} {reason}") }
            }
            _ => RdbError::Refused { address, reason: format!("{code} {reason}") },
        }
    }
}
