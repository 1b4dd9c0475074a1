//! The commit of a tick: what one ticker changed, written in parts, and then as safe as asked. Knows slots and
//! confirmations, not what is in the bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use fortia_common::topology::Topology;
use fortia_vec::ChunkPos;
use futures::future::try_join_all;

use super::{World, by_server};
use crate::RdbError;
use crate::connection::{Line, RESPONSE, value};
use crate::keyspace::WorldKey;
use crate::write::Op;

/// What one ticker commits of one tick. Empty bytes remove the thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Chunk columns as stored.
    pub chunks: Vec<(ChunkPos, Bytes)>,
    /// Entities as stored.
    pub entities: Vec<(u64, Bytes)>,
    /// New entities and the names of their owners.
    pub born: Vec<(String, u64)>,
    /// Those whose records go, and the names of their owners, off whose lists they go too.
    pub gone: Vec<(String, u64)>,
    /// Chunks whose claims were read: their locks are removed.
    pub unlocked: Vec<ChunkPos>,
}

/// What must be true of a write before it counts, on a shard it went to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Safe {
    /// How many replicas have it.
    pub replicas: u32,
    /// Whether the primary, and these replicas, have it on disk. Servers before Redis 7.2 cannot tell.
    pub on_disk: bool,
}

impl From<u32> for Safe {
    /// In the memory of so many replicas.
    fn from(replicas: u32) -> Safe {
        Safe { replicas, on_disk: false }
    }
}

/// A commit that goes on. Dropped before its end, what it has written belongs to a tick that must be run again.
pub struct Commit<'a> {
    world: &'a World,
    topology: Topology,
    tick_epoch: u64,
    tick: u64,
    /// Of each shard that was written to, the connection, and the number of the last part: only on the same connection can it
    /// be asked who has the writes.
    lines: BTreeMap<u32, (Line, u64)>,
}

impl World {
    /// Begins to commit `tick`.
    pub fn commit(&self, tick_epoch: u64, tick: u64) -> Commit<'_> {
        Commit { world: self, topology: self.now(), tick_epoch, tick, lines: BTreeMap::new() }
    }

    /// Commits in one part what one ticker changed in `tick`. Writing the same again changes nothing.
    ///
    /// # Errors
    /// As [`Commit::write`] and [`Commit::end`].
    pub async fn commit_tick(
        &self,
        tick_epoch: u64,
        tick: u64,
        changes: &Changes,
        safe: impl Into<Safe>,
    ) -> Result<(), RdbError> {
        let mut commit = self.commit(tick_epoch, tick);
        commit.write(changes).await?;
        let safe = safe.into();
        commit.end(|_| safe).await.map(drop)
    }
}

impl Commit<'_> {
    /// Writes a part of the changes: one pipelined call per shard, all shards at once.
    ///
    /// # Errors
    /// `Stale` for a ticker of an older `tick_epoch`; otherwise when a guard refuses or a shard does not answer. The
    /// tick must be run again then.
    pub async fn write(&mut self, part: &Changes) -> Result<(), RdbError> {
        let calls = self.calls(part);
        for shard in calls.keys().filter(|shard| !self.lines.contains_key(shard)).copied().collect::<Vec<_>>()
        {
            let line = self.world.shards.primary(&self.topology, shard)?.line().await?;
            self.lines.insert(shard, (line, 0));
        }
        let lines = self.lines.iter_mut().filter_map(|(shard, line)| Some((line, calls.get(shard)?)));
        try_join_all(lines.map(|((line, part), calls)| async move {
            let last = line.ask(calls).await?.pop().unwrap_or_default();
            *part = value(line.address(), last)?;
            Ok::<_, RdbError>(())
        }))
        .await?;
        Ok(())
    }

    /// What each shard is asked for a part: values first, then what names them; at last it counts the part.
    fn calls(&self, part: &Changes) -> BTreeMap<u32, redis::Pipeline> {
        let layout = &self.topology.serving;
        let writer = self.world.writer(&self.topology, self.tick_epoch);
        let mut calls: BTreeMap<u32, redis::Pipeline> = BTreeMap::new();
        for (shard, values) in by_server(layout, part.values()) {
            writer.fill_slots(self.tick, &values, calls.entry(shard).or_default());
        }
        for (shard, operations) in by_server(layout, part.operations()) {
            writer.operate(&operations, calls.entry(shard).or_default());
        }
        for calls in calls.values_mut() {
            calls.add_command(writer.part(self.tick));
        }
        calls
    }

    /// Waits until every shard that was written to has it all as safe as asked of it. Returns these shards, each with the number
    /// of its last part: who comes back with fewer has forgotten some of it.
    ///
    /// # Errors
    /// `NotReplicated` and `NotOnDisk` when that is not confirmed; otherwise when a shard does not answer. The tick must
    /// be run again then.
    pub async fn end(self, safe: impl Fn(u32) -> Safe) -> Result<Vec<(u32, u64)>, RdbError> {
        let confirmed = self.lines.into_iter().map(|(shard, (line, part))| {
            let safe = safe(shard);
            async move { confirmed(line, safe).await.map(|()| (shard, part)) }
        });
        try_join_all(confirmed).await
    }
}

impl Changes {
    fn values(&self) -> impl Iterator<Item = (WorldKey, Bytes)> + '_ {
        let chunks = self.chunks.iter().map(|(at, value)| (WorldKey::Chunk(*at), value.clone()));
        chunks.chain(self.entities.iter().map(|(id, value)| (WorldKey::Entity(*id), value.clone())))
    }

    fn operations(&self) -> impl Iterator<Item = (WorldKey, Op)> + '_ {
        // Everybody has read the claims: the stage they are read in is over.
        let unlocked = self.unlocked.iter().map(|at| (WorldKey::Lock(*at), Op::Delete));
        // A player may be seen to own what appears with the tick a moment before it does, never the other way round.
        let member = |id: &u64| vec![Bytes::from(id.to_string())];
        let born = self.born.iter();
        let born =
            born.map(move |(owner, id)| (WorldKey::PlayerEntities(owner.clone()), Op::SetAdd(member(id))));
        // Nothing else names them any more.
        let gone = self.gone.iter().flat_map(move |(owner, id)| {
            let list = WorldKey::PlayerEntities(owner.clone());
            [(list, Op::SetRemove(member(id))), (WorldKey::Entity(*id), Op::Delete)]
        });
        born.chain(gone).chain(unlocked)
    }
}

/// Asks a server who else has all that was written on this connection.
async fn confirmed(mut line: Line, safe: Safe) -> Result<(), RdbError> {
    // The server's own limit ends before ours, so that its count comes back.
    let limit = (RESPONSE / 2).as_millis() as u64;
    let mut ask = redis::pipe();
    if safe.on_disk {
        ask.cmd("WAITAOF").arg(1).arg(safe.replicas).arg(limit);
    } else if safe.replicas > 0 {
        ask.cmd("WAIT").arg(safe.replicas).arg(limit);
    } else {
        return Ok(());
    }
    let confirmed = line.ask(&ask).await?.pop().unwrap_or_default();
    let address = line.address().to_owned();
    let replicas: u32 = if safe.on_disk {
        let (primary, replicas): (u32, u32) = value(&address, confirmed)?;
        if primary == 0 {
            return Err(RdbError::NotOnDisk { address });
        }
        replicas
    } else {
        value(&address, confirmed)?
    };
    if replicas < safe.replicas {
        return Err(RdbError::NotReplicated { address, wanted: safe.replicas, confirmed: replicas });
    }
    Ok(())
}
