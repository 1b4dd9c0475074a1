//! The scheduler's hands on the guards: freeze for a re-sharding, open the new version, or go back.

use fortia_common::topology::Topology;
use futures::future::try_join_all;

use super::World;
use crate::RdbError;
use crate::guard::{self, Setting, State};
use crate::place::{group, target};

impl World {
    /// Freezes the serving version on all groups of both layouts; only the migration into `topology.target` writes.
    ///
    /// # Errors
    /// `Topology` when it has no target, `Stale` when a guard has a newer epoch; otherwise when a server does not
    /// answer. Some groups may be frozen then: do it again, or [`World::unfreeze`].
    pub async fn freeze(&self, topology: &Topology) -> Result<(), RdbError> {
        let to = target(topology)?;
        let setting = Setting { target: to.version, ..held(topology) };
        self.set_guards(topology, 0..topology.serving.shards.max(to.shards), |_| setting).await
    }

    /// Opens the target version under `epoch` (that of the topology to be flipped to): every action up to tick
    /// `closed` was read. Groups only the old version has stay frozen.
    ///
    /// # Errors
    /// As [`World::freeze`].
    pub async fn open_target(&self, topology: &Topology, epoch: u64, closed: u64) -> Result<(), RdbError> {
        let to = target(topology)?;
        let open =
            Setting { epoch, version: to.version, state: State::Open, target: 0, closed: Some(closed) };
        let left = Setting { epoch, ..held(topology) };
        let setting = |shard| if shard < to.shards { open } else { left };
        self.set_guards(topology, 0..topology.serving.shards.max(to.shards), setting).await
    }

    /// Opens the serving version again on all groups, under the topology's epoch.
    ///
    /// # Errors
    /// As [`World::freeze`], except that no target is needed.
    pub async fn unfreeze(&self, topology: &Topology) -> Result<(), RdbError> {
        let all = topology.serving.shards.max(topology.target.map_or(0, |to| to.shards));
        let setting = Setting { state: State::Open, ..held(topology) };
        self.set_guards(topology, 0..all, |_| setting).await
    }

    async fn set_guards(
        &self,
        topology: &Topology,
        shards: std::ops::Range<u32>,
        setting: impl Fn(u32) -> Setting,
    ) -> Result<(), RdbError> {
        try_join_all(shards.map(|shard| {
            let to = setting(shard);
            async move {
                let server = self.shards.primary(topology, shard)?;
                guard::set(&server, self.shards.cluster(), &group(topology, shard)?.name, shard, to).await
            }
        }))
        .await?;
        Ok(())
    }
}

fn held(topology: &Topology) -> Setting {
    Setting {
        epoch: topology.epoch,
        version: topology.serving.version,
        state: State::Frozen,
        target: 0,
        closed: None,
    }
}
