//! What a tick does to the shards: actions are put and taken, changes are committed. Knows epochs and closed ticks.

use bytes::Bytes;
use fortia_common::topology::Topology;
use fortia_vec::RegionPos;
use futures::future::try_join_all;
use tokio::time::{Instant, timeout_at};

use super::{Changes, NEWER_TOPOLOGY, World, by_shard};
use crate::RdbError;
use crate::keyspace::WorldKey;
use crate::write::Op;

/// Ticks an action tries before it is given up; each refusal names the last closed tick, so one or two do.
const TICKS_TRIED: u32 = 16;

impl World {
    /// Closes the actions of `tick` for these regions and returns them, in the order they came. From then on
    /// actions go to a later tick; taking again returns the same.
    ///
    /// # Errors
    /// `Stale` for a ticker of an older `tick_epoch`; otherwise when a guard refuses or a shard does not answer.
    pub async fn take_actions(
        &self,
        tick_epoch: u64,
        tick: u64,
        regions: &[RegionPos],
    ) -> Result<Vec<(RegionPos, Vec<Bytes>)>, RdbError> {
        let topology = self.now();
        let layout = topology.serving;
        let keys: Vec<WorldKey> = regions.iter().map(|&region| WorldKey::Actions { tick, region }).collect();
        let writer = self.writer(&topology, tick_epoch);
        let asked = by_shard(&keys, &layout).into_iter().map(|(shard, indices)| {
            let physical: Vec<Vec<u8>> =
                indices.iter().map(|&i| keys[i].physical(layout.version).into_bytes()).collect();
            let call = writer.take(tick, &physical);
            let topology = &topology;
            async move {
                let server = self.shards.primary(topology, shard)?;
                let lists: Vec<Vec<Bytes>> = server.one(call).await?;
                Ok::<_, RdbError>((indices, lists))
            }
        });
        let mut taken: Vec<_> = regions.iter().map(|&region| (region, Vec::new())).collect();
        for (indices, lists) in try_join_all(asked).await? {
            for (i, list) in indices.into_iter().zip(lists) {
                taken[i].1 = list;
            }
        }
        Ok(taken)
    }

    /// Commits what one ticker changed in `tick`: one pipelined call per shard, then waits until
    /// `replicas_in_sync` replicas of every shard have it. Writing the same again changes nothing.
    ///
    /// # Errors
    /// `Stale` for a ticker of an older `tick_epoch`, `NotReplicated` when replicas do not confirm; otherwise when a
    /// guard refuses or a shard does not answer. The tick must be run again then.
    pub async fn commit_tick(
        &self,
        tick_epoch: u64,
        tick: u64,
        changes: &Changes,
        replicas_in_sync: u32,
    ) -> Result<(), RdbError> {
        let slot = |value: &Bytes| Op::Slot { tick, value: value.clone() };
        let chunks = changes.chunks.iter().map(|(at, value)| (WorldKey::Chunk(*at), slot(value)));
        let entities = changes.entities.iter().map(|(id, value)| (WorldKey::Entity(*id), slot(value)));
        // Actions of this tick are needed until it is committed, those of the tick before never again.
        let before = tick.saturating_sub(1);
        let read = changes.read_actions.iter();
        let read = read.map(|&region| (WorldKey::Actions { tick: before, region }, Op::Delete));
        let operations = chunks.chain(entities).chain(read).collect();
        self.write(&self.now(), tick_epoch, replicas_in_sync, operations).await
    }

    /// Puts an action into `first_tick` or, where that was already read, into the next tick that was not; returns
    /// the tick it will run in. Waits a moment for a newer topology when its own is refused as old.
    ///
    /// # Errors
    /// `Frozen` while a re-sharding holds the world; otherwise when a guard refuses or the shard does not answer
    /// (then the action may or may not run).
    pub async fn push_action(
        &self,
        first_tick: u64,
        region: RegionPos,
        action: Bytes,
    ) -> Result<u64, RdbError> {
        let mut tick = first_tick;
        let mut closed = 0;
        let deadline = Instant::now() + NEWER_TOPOLOGY;
        loop {
            let topology = self.now();
            let op = Op::Act { tick, action: action.clone() };
            let refused =
                match self.write(&topology, 0, 0, vec![(WorldKey::Actions { tick, region }, op)]).await {
                    Ok(()) => return Ok(tick),
                    Err(refused) => refused,
                };
            match &refused {
                RdbError::Closed { closed: last } if closed < TICKS_TRIED => {
                    closed += 1;
                    tick = (*last).max(tick) + 1;
                }
                RdbError::Stale { .. } | RdbError::WrongVersion { .. } => {
                    self.newer_topology(&topology, deadline).await.ok_or(refused)?;
                }
                _ => return Err(refused),
            }
        }
    }

    /// Makes every shard refuse tickers of older epochs from now on. The scheduler's first act in a new epoch.
    ///
    /// # Errors
    /// `Stale` when a newer epoch has begun; otherwise when a shard does not answer.
    pub async fn raise(&self, tick_epoch: u64) -> Result<(), RdbError> {
        let topology = self.now();
        let writer = self.writer(&topology, tick_epoch);
        let shards = 0..topology.serving.shards;
        try_join_all(shards.map(|shard| self.send(&topology, shard, writer.calls(&[]), 0))).await?;
        Ok(())
    }

    async fn newer_topology(&self, than: &Topology, deadline: Instant) -> Option<()> {
        let mut topology = self.topology.clone();
        let newer = topology.wait_for(|topology| topology.epoch > than.epoch);
        matches!(timeout_at(deadline, newer).await, Ok(Ok(_))).then_some(())
    }
}
