//! From a key to the server that has it: layouts, groups and the connections to them. Knows no key's meaning.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fortia_common::boot::Boot;
use fortia_common::topology::{Group, Layout, Topology};

use crate::RdbError;
use crate::connection::{Login, Server, Wanted};

/// The servers of the shards, each connected to when first asked.
pub(crate) struct Shards {
    login: Login,
    response: Duration,
    servers: Mutex<HashMap<(u32, String), Arc<Server>>>,
}

impl Shards {
    pub(crate) fn new(boot: &Boot, response: Duration) -> Shards {
        Shards { login: Login::of(boot), response, servers: Mutex::default() }
    }

    pub(crate) fn cluster(&self) -> &str {
        &self.login.cluster
    }

    /// The primary of a shard.
    pub(crate) fn primary(&self, topology: &Topology, shard: u32) -> Result<Arc<Server>, RdbError> {
        let group = group(topology, shard)?;
        Ok(self.server(topology, group, shard, &group.primary))
    }

    /// The replicas of a shard.
    pub(crate) fn replicas(&self, topology: &Topology, shard: u32) -> Result<Vec<Arc<Server>>, RdbError> {
        let group = group(topology, shard)?;
        Ok(group.replicas.iter().map(|address| self.server(topology, group, shard, address)).collect())
    }

    /// What a connection of one's own to the primary of a shard needs.
    pub(crate) fn wanted_primary(&self, topology: &Topology, shard: u32) -> Result<Wanted, RdbError> {
        let group = group(topology, shard)?;
        Ok(self.wanted(group, shard, &group.primary))
    }

    fn wanted(&self, group: &Group, index: u32, address: &str) -> Wanted {
        Wanted { address: address.to_owned(), login: self.login.clone(), group: group.name.clone(), index }
    }

    fn server(&self, topology: &Topology, group: &Group, index: u32, address: &str) -> Arc<Server> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = servers.get(&(index, address.to_owned())) {
            return server.clone();
        }
        // A new address is rare: a good moment to let go of servers that are no longer in the topology.
        servers.retain(|(index, address), _| match group_at(topology, *index) {
            Some(group) => group.primary == *address || group.replicas.contains(address),
            None => false,
        });
        let server = Server::new(self.wanted(group, index, address), self.response);
        servers.insert((index, address.to_owned()), server.clone());
        server
    }
}

fn group_at(topology: &Topology, shard: u32) -> Option<&Group> {
    topology.groups.get(usize::try_from(shard).ok()?)
}

/// The group of a shard.
pub(crate) fn group(topology: &Topology, shard: u32) -> Result<&Group, RdbError> {
    group_at(topology, shard).ok_or_else(|| RdbError::Topology {
        epoch: topology.epoch,
        reason: format!("there is no shard {shard}"),
    })
}

/// The layout a re-sharding makes.
pub(crate) fn target(topology: &Topology) -> Result<Layout, RdbError> {
    topology
        .target
        .ok_or_else(|| RdbError::Topology { epoch: topology.epoch, reason: "no re-sharding runs".into() })
}
