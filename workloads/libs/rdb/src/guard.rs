//! The guard of a shard: who may write it now. Knows its fields and how to read and set it.

use std::collections::{BTreeMap, HashMap};

use fortia_common::records;

use crate::RdbError;
use crate::connection::Server;

/// Whether a shard's version is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Written.
    Open,
    /// Written, and written keys are noted for the migration.
    Copying,
    /// Not written, except for the migration into the target version.
    Frozen,
}

impl State {
    /// The word in the guard.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Open => "open",
            State::Copying => "copying",
            State::Frozen => "frozen",
        }
    }

    fn parse(word: &str) -> Option<State> {
        [State::Open, State::Copying, State::Frozen].into_iter().find(|state| state.as_str() == word)
    }
}

/// A shard's guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Uid of the cluster.
    pub uid: String,
    /// Name of the group.
    pub group: String,
    /// Index of the group among the shards.
    pub index: u32,
    /// Topology epoch; older writers are refused.
    pub epoch: u64,
    /// Newest tick epoch seen; older tickers are refused.
    pub tick_epoch: u64,
    /// The version that is written.
    pub version: u64,
    /// Whether it is.
    pub state: State,
    /// The version a migration may fill; 0: none.
    pub target: u64,
    /// Last tick whose actions were read: it takes no more.
    pub closed: u64,
    /// Parts of commits that it was told, in all its life: who comes back with fewer has forgotten some.
    pub parts: u64,
    /// Epoch at which noting for the running migration began.
    pub since: u64,
    /// The newest attempt to work on each source, as this server knows it.
    pub attempts: BTreeMap<u32, u64>,
}

/// What a guard is set to; the rest of it says which server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) epoch: u64,
    pub(crate) version: u64,
    pub(crate) state: State,
    pub(crate) target: u64,
    /// None keeps what is there.
    pub(crate) closed: Option<u64>,
}

/// Reads the guard of a server.
pub(crate) async fn read(server: &Server) -> Result<Guard, RdbError> {
    let mut command = redis::cmd("HGETALL");
    command.arg(records::GUARD);
    read_from(server, &server.get(command).await?)
}

/// The guard of a server, from its fields.
pub(crate) fn read_from(server: &Server, fields: &HashMap<String, String>) -> Result<Guard, RdbError> {
    parse(fields).ok_or_else(|| {
        RdbError::corrupt(records::GUARD, format!("the guard of {} lacks fields", server.address()))
    })
}

fn parse(fields: &HashMap<String, String>) -> Option<Guard> {
    let number = |name: &str| fields.get(name)?.parse().ok();
    Some(Guard {
        uid: fields.get("uid")?.clone(),
        group: fields.get("group")?.clone(),
        index: fields.get("index")?.parse().ok()?,
        epoch: number("epoch")?,
        tick_epoch: number("tick_epoch")?,
        version: number("version")?,
        state: State::parse(fields.get("state")?)?,
        target: number("target")?,
        closed: number("closed")?,
        parts: number("parts").unwrap_or_default(),
        since: number("since").unwrap_or_default(),
        attempts: fields.iter().filter_map(attempt).collect(),
    })
}

fn attempt((name, number): (&String, &String)) -> Option<(u32, u64)> {
    Some((name.strip_prefix("attempt:")?.parse().ok()?, number.parse().ok()?))
}

/// Sets the guard of a server that is `group`, `index` of `cluster`.
pub(crate) async fn set(
    server: &Server,
    cluster: &str,
    group: &str,
    index: u32,
    to: Setting,
) -> Result<(), RdbError> {
    let mut command = redis::cmd("FCALL");
    command.arg("fortia_guard").arg(1).arg(records::GUARD).arg(cluster).arg(group).arg(index);
    command.arg(to.epoch).arg(to.version).arg(to.state.as_str()).arg(to.target);
    command.arg(to.closed.map(|tick| tick.to_string()).unwrap_or_default());
    server.one::<()>(command).await
}
