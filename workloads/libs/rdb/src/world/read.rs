//! Reads of the world as of a committed tick, from a primary or, while that is down, from its replicas.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use fortia_common::topology::Topology;
use fortia_vec::{BlockPos, ChunkPos};
use futures::future::{join_all, try_join_all};
use redis::Value;
use tokio::time::{Instant, timeout_at};

use super::kept::{self, Kept};
use super::{CUTOVER, Info, Player, World, by_shard, field};
use crate::RdbError;
use crate::connection::{Server, value};
use crate::keyspace::WorldKey;
use crate::slots::{self, Slot};

impl World {
    /// Stored chunk columns as of `tick`, in the order asked; none where there is no chunk.
    ///
    /// # Errors
    /// `TooNew` when `tick` is so old that a value of it is overwritten: fetch the committed tick and ask again.
    /// Otherwise when neither a shard's primary nor (unless [`World::primary_only`]) one of its replicas answers.
    pub async fn chunks(&self, tick: u64, at: &[ChunkPos]) -> Result<Vec<Option<Bytes>>, RdbError> {
        self.slots(tick, at.iter().map(|at| WorldKey::Chunk(*at)).collect()).await
    }

    /// Stored entities as of `tick`, in the order asked; none where there is no such entity.
    ///
    /// # Errors
    /// As [`World::chunks`].
    pub async fn entities(&self, tick: u64, ids: &[u64]) -> Result<Vec<Option<Bytes>>, RdbError> {
        self.slots(tick, ids.iter().map(|id| WorldKey::Entity(*id)).collect()).await
    }

    /// The world's record; none until worldgen is done.
    ///
    /// # Errors
    /// When the shard does not answer or the record cannot be understood.
    pub async fn info(&self) -> Result<Option<Info>, RdbError> {
        let Some((key, fields)) = self.hash(WorldKey::Info).await? else { return Ok(None) };
        Ok(Some(Info {
            seed: field(&key, &fields, "seed")?,
            radius: field(&key, &fields, "radius")?,
            limit: field(&key, &fields, "limit")?,
            created_ms: field(&key, &fields, "created")?,
            tick_period_ms: field(&key, &fields, "tick_period")?,
        }))
    }

    /// A player; none when they have not joined this world.
    ///
    /// # Errors
    /// As [`World::info`].
    pub async fn player(&self, name: &str) -> Result<Option<Player>, RdbError> {
        let Some((key, fields)) = self.hash(WorldKey::Player(name.to_owned())).await? else {
            return Ok(None);
        };
        let start = BlockPos {
            x: field(&key, &fields, "x")?,
            y: field(&key, &fields, "y")?,
            z: field(&key, &fields, "z")?,
        };
        Ok(Some(Player { joined_ms: field(&key, &fields, "joined")?, start }))
    }

    /// Ids of a player's entities, ascending.
    ///
    /// # Errors
    /// As [`World::info`].
    pub async fn player_entities(&self, name: &str) -> Result<Vec<u64>, RdbError> {
        let key = WorldKey::PlayerEntities(name.to_owned());
        let (address, answer) = self.read_one("SMEMBERS", &key).await?;
        let members: Vec<String> = value(&address, answer)?;
        let corrupt =
            |member: &String| RdbError::corrupt(key.text(), format!("member {member:?} is no entity"));
        let mut ids = members
            .iter()
            .map(|member| member.parse().map_err(|_| corrupt(member)))
            .collect::<Result<Vec<u64>, RdbError>>()?;
        ids.sort_unstable();
        Ok(ids)
    }

    async fn slots(&self, tick: u64, keys: Vec<WorldKey>) -> Result<Vec<Option<Bytes>>, RdbError> {
        let command = |key: String| {
            let mut command = redis::cmd("HMGET");
            command.arg(key).arg("t0").arg("d0").arg("t1").arg("d1");
            command
        };
        let answers = self.read(&keys, command).await?;
        keys.iter().zip(answers).map(|(key, (address, answer))| decode(key, &address, answer, tick)).collect()
    }

    async fn hash(&self, key: WorldKey) -> Result<Option<(String, HashMap<String, String>)>, RdbError> {
        let (address, answer) = self.read_one("HGETALL", &key).await?;
        let fields: HashMap<String, String> = value(&address, answer)?;
        Ok((!fields.is_empty()).then(|| (key.text(), fields)))
    }

    async fn read_one(&self, command: &str, key: &WorldKey) -> Result<(String, Value), RdbError> {
        let with_key = |key: String| {
            let mut command = redis::cmd(command);
            command.arg(key);
            command
        };
        Ok(self.read(std::slice::from_ref(key), with_key).await?.pop().unwrap_or_default())
    }

    /// One command per key, one pipeline per shard; answers (with who gave them) in the order of the keys. What a shard has
    /// no more under the topology of the moment is read under the next.
    pub(super) async fn read(
        &self,
        keys: &[WorldKey],
        command: impl Fn(String) -> redis::Cmd,
    ) -> Result<Vec<(String, Value)>, RdbError> {
        let by = Instant::now() + CUTOVER;
        loop {
            let topology = self.now();
            let outdated = match self.read_under(&topology, keys, &command).await {
                Err(outdated @ RdbError::Outdated { .. }) => outdated,
                done => return done,
            };
            let mut newer = self.topology.clone();
            match timeout_at(by, newer.wait_for(|now| now.epoch > topology.epoch)).await {
                Ok(Ok(_)) => {}
                _ => return Err(outdated),
            }
        }
    }

    async fn read_under(
        &self,
        topology: &Topology,
        keys: &[WorldKey],
        command: impl Fn(String) -> redis::Cmd,
    ) -> Result<Vec<(String, Value)>, RdbError> {
        let layout = topology.serving;
        let asked = by_shard(keys, &layout).into_iter().map(|(shard, indices)| {
            let mut pipe = redis::pipe();
            for &i in &indices {
                pipe.add_command(command(keys[i].physical(layout.version)));
            }
            pipe.add_command(kept::question());
            async move {
                let (address, answers) = self.read_shard(topology, shard, &pipe).await?;
                Ok::<_, RdbError>((address, indices, answers))
            }
        });
        let mut all = vec![<(String, Value)>::default(); keys.len()];
        for (address, indices, answers) in try_join_all(asked).await? {
            for (i, answer) in indices.into_iter().zip(answers) {
                all[i] = (address.clone(), answer);
            }
        }
        Ok(all)
    }

    async fn read_shard(
        &self,
        topology: &Topology,
        shard: u32,
        pipe: &redis::Pipeline,
    ) -> Result<(String, Vec<Value>), RdbError> {
        let primary = self.shards.primary(topology, shard)?;
        let version = topology.serving.version;
        let down = match primary.read(pipe).await {
            Ok(answers) => return self.kept(primary.address(), answers, version),
            Err(error) if error.is_down() && self.replicas_answer => error,
            Err(error) => return Err(error),
        };
        // The world stays visible while a primary is down. Of several replicas one has every commit: it is ahead of others.
        for replica in furthest_first(self.shards.replicas(topology, shard)?).await {
            if let Ok(answers) = replica.read(pipe).await
                && let Ok(answers) = self.kept(replica.address(), answers, version)
            {
                return Ok(answers);
            }
        }
        Err(down)
    }

    /// The answers of a server, if it had the version when it had given them: an empty answer of one that had it no more
    /// would be taken for an empty world.
    fn kept(
        &self,
        address: &str,
        mut answers: Vec<Value>,
        version: u64,
    ) -> Result<(String, Vec<Value>), RdbError> {
        let (kept, reason) = kept::judge(address, answers.pop().unwrap_or_default(), version)?;
        let address = address.to_owned();
        match kept {
            Kept::Safe => Ok((address, answers)),
            Kept::Lent if self.is_waited_for() => Ok((address, answers)),
            Kept::Lent | Kept::Gone => Err(RdbError::Outdated { address, version, reason }),
        }
    }
}

/// Replicas by how much of their primary's stream they have. Who does not answer comes last.
async fn furthest_first(replicas: Vec<Arc<Server>>) -> Vec<Arc<Server>> {
    if replicas.len() < 2 {
        return replicas;
    }
    let offsets = join_all(replicas.iter().map(|replica| replica.offset())).await;
    let mut by_offset: Vec<_> = offsets.into_iter().map(Result::ok).zip(replicas).collect();
    by_offset.sort_by_key(|(offset, _)| Reverse(*offset));
    by_offset.into_iter().map(|(_, replica)| replica).collect()
}

fn decode(key: &WorldKey, address: &str, answer: Value, tick: u64) -> Result<Option<Bytes>, RdbError> {
    let [t0, d0, t1, d1]: [Option<Bytes>; 4] = value::<Vec<Option<Bytes>>>(address, answer)?
        .try_into()
        .map_err(|_| RdbError::corrupt(key.text(), "it has no two slots"))?;
    let slot = |tick: Option<Bytes>, value: Option<Bytes>| match (tick, value) {
        (None, None) => Ok(None),
        (Some(tick), Some(value)) => std::str::from_utf8(&tick)
            .ok()
            .and_then(|text| text.parse().ok())
            .map(|tick| Some(Slot { tick, value }))
            .ok_or_else(|| RdbError::corrupt(key.text(), "the tick of a slot is no number")),
        _ => Err(RdbError::corrupt(key.text(), "a slot is half there")),
    };
    slots::read([slot(t0, d0)?, slot(t1, d1)?], tick)
        .map_err(|slots::TooNew| RdbError::TooNew { key: key.text(), tick })
}
