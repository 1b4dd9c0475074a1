//! What a tick asks of the shards before its commit: actions are put and taken, locks too. Knows epochs and closed ticks.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use fortia_common::records;
use fortia_vec::{ChunkPos, RegionPos};
use futures::future::try_join_all;
use redis::Value;

use super::World;
use crate::RdbError;
use crate::connection::value;
use crate::guard::{self, Guard};
use crate::keyspace::{self, WorldKey};
use crate::write::Op;

/// Ticks an action tries before it is given up; each refusal names the last closed tick, so one or two do.
const TICKS_TRIED: u32 = 16;
/// Full lists an action meets before it is given up: whoever floods a region fills few ticks ahead.
const FULL_TRIED: u32 = 2;
/// Characters a claim's rank has: digits of fixed width, so that their order as text is their order as numbers.
pub const RANK: usize = 32;

/// A block's number in its chunk, and the claim on it.
pub type Claim = (u32, Bytes);

/// What taking locks met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Locked {
    /// Locks taken, one a chunk.
    pub locks: u64,
    /// Claims that met another one on their block.
    pub conflicts: u64,
}

/// What shards must still know when a tick is taken: one that came back without it is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remembered<'a> {
    /// By shard, how many parts of commits it was told and had confirmed; of shards that are left out nothing is known.
    pub parts: &'a [u64],
    /// Whether the tick was taken before, by a run that may have written: its actions must be the same then.
    pub again: bool,
}

impl World {
    /// Closes the actions of `tick` and returns those of these regions (ascending), in the order they came; regions
    /// nobody acted in are left out, and cost nothing. From then on actions go to a later tick; taking again returns
    /// the same. The lists of the ticks before are removed: a tick begins when the one before is committed.
    ///
    /// # Errors
    /// `Stale` for a ticker of an older `tick_epoch`, `Forgotten` when a shard does not know what it must; otherwise when a
    /// guard refuses or a shard does not answer.
    pub async fn take_actions(
        &self,
        tick_epoch: u64,
        tick: u64,
        regions: &[RegionPos],
        remembered: Remembered<'_>,
    ) -> Result<Vec<(RegionPos, Vec<Bytes>)>, RdbError> {
        let topology = self.now();
        let layout = topology.serving;
        let acting = keyspace::acting(layout.version);
        let writer = self.writer(&topology, tick_epoch);
        let taken = try_join_all((0..layout.shards).map(|shard| {
            let least = remembered.parts.get(shard as usize).copied().unwrap_or_default();
            let call = writer.take(tick, &acting, least, remembered.again);
            let topology = &topology;
            async move {
                let server = self.shards.primary(topology, shard)?;
                let acted: Vec<String> = server.one(call).await?;
                let acted = acted.iter().filter_map(|text| keyspace::region(text));
                let mine: Vec<RegionPos> = acted.filter(|r| regions.binary_search(r).is_ok()).collect();
                let mut lists = redis::pipe();
                for region in &mine {
                    let key = WorldKey::Actions { tick, region: *region }.physical(layout.version);
                    lists.cmd("LRANGE").arg(key).arg(0).arg(-1);
                }
                let lists = server.read(&lists).await?.into_iter().map(|list| value(server.address(), list));
                mine.into_iter().zip(lists).map(|(region, list)| Ok((region, list?))).collect()
            }
        }));
        let taken: Vec<Vec<(RegionPos, Vec<Bytes>)>> = taken.await?;
        let mut taken: Vec<_> = taken.into_iter().flatten().filter(|(_, list)| !list.is_empty()).collect();
        taken.sort_by_key(|(region, _)| *region);
        Ok(taken)
    }

    /// Takes the locks of these chunks for `tick`, claims blocks in them, and lets them go: one pipelined call per
    /// shard, chunks in the order of their keys. A claim begins with its rank, [`RANK`] characters of fixed width;
    /// per block the least rank stays, whoever came first, and a claim made again changes nothing. Claims of another
    /// tick or an older `tick_epoch` are worthless and give way.
    ///
    /// # Errors
    /// `Stale` for a ticker of an older `tick_epoch`; otherwise when a guard refuses or a shard does not answer.
    pub async fn lock(
        &self,
        tick_epoch: u64,
        tick: u64,
        claims: &[(ChunkPos, Vec<Claim>)],
    ) -> Result<Locked, RdbError> {
        let topology = self.now();
        let layout = topology.serving;
        let mut by_shard: BTreeMap<u32, BTreeMap<Vec<u8>, &[Claim]>> = BTreeMap::new();
        for (at, claims) in claims {
            let key = WorldKey::Lock(*at);
            let physical = key.physical(layout.version).into_bytes();
            by_shard.entry(key.shard(&layout)).or_default().insert(physical, claims);
        }
        let writer = self.writer(&topology, tick_epoch);
        let locked = try_join_all(by_shard.into_iter().map(|(shard, claims)| {
            let claims: Vec<(Vec<u8>, &[Claim])> = claims.into_iter().collect();
            let calls = writer.lock(tick, &claims);
            let topology = &topology;
            async move {
                let server = self.shards.primary(topology, shard)?;
                let answers = server.ask(&calls).await?.into_iter();
                answers.map(|answer| value(server.address(), answer)).collect::<Result<Vec<(u64, u64)>, _>>()
            }
        }));
        let mut sum = Locked::default();
        for (locks, conflicts) in locked.await?.into_iter().flatten() {
            sum.locks += locks;
            sum.conflicts += conflicts;
        }
        Ok(sum)
    }

    /// The claims on these chunks as all tickers left them, ascending by block, in the order asked; none for a chunk
    /// nobody has locked in this tick and epoch.
    ///
    /// # Errors
    /// `Corrupt` when a claim cannot be understood; otherwise when a shard does not answer.
    pub async fn claims(
        &self,
        tick_epoch: u64,
        tick: u64,
        chunks: &[ChunkPos],
    ) -> Result<Vec<Option<Vec<Claim>>>, RdbError> {
        let keys: Vec<WorldKey> = chunks.iter().map(|at| WorldKey::Lock(*at)).collect();
        let ask = |key: String| {
            let mut command = redis::cmd("HGETALL");
            command.arg(key);
            command
        };
        let answers = self.read(&keys, ask).await?;
        let decode = |(key, (address, answer)): (&WorldKey, (String, Value))| {
            let fields: HashMap<String, Bytes> = value(&address, answer)?;
            claims_of(key, fields, tick_epoch, tick)
        };
        keys.iter().zip(answers).map(decode).collect()
    }

    /// Puts an action into `first_tick` or, where that was already read or is full, into a tick soon after; returns
    /// the tick it will run in. Waits a moment for a re-sharding that cuts over.
    ///
    /// # Errors
    /// `Frozen` while a re-sharding cuts over and takes too long; `Full` when the region has too many actions in these ticks;
    /// otherwise when a guard refuses or the shard does not answer (then the action may or may not run).
    pub async fn push_action(
        &self,
        first_tick: u64,
        region: RegionPos,
        action: Bytes,
    ) -> Result<u64, RdbError> {
        let (mut tick, mut closed, mut full) = (first_tick, 0, 0);
        loop {
            let act = |topology| {
                let op = Op::Act { tick, action: action.clone() };
                async move { self.write(&topology, 0, vec![(WorldKey::Actions { tick, region }, op)]).await }
            };
            match self.patiently(act).await {
                Ok(()) => return Ok(tick),
                Err(RdbError::Closed { closed: last }) if closed < TICKS_TRIED => {
                    closed += 1;
                    tick = last.max(tick) + 1;
                }
                Err(RdbError::Full { .. }) if full < FULL_TRIED => {
                    full += 1;
                    tick += 1;
                }
                Err(refused) => return Err(refused),
            }
        }
    }

    /// Makes every shard refuse tickers of older epochs from now on, and returns their guards. The scheduler's first act in a
    /// new epoch.
    ///
    /// # Errors
    /// `Stale` when a newer epoch has begun; otherwise when a shard does not answer.
    pub async fn raise(&self, tick_epoch: u64) -> Result<Vec<Guard>, RdbError> {
        let topology = self.now();
        let writer = self.writer(&topology, tick_epoch);
        let shards = 0..topology.serving.shards;
        let raised = shards.map(|shard| {
            let (mut calls, topology) = (writer.calls(&[]), &topology);
            calls.cmd("HGETALL").arg(records::GUARD);
            async move {
                let server = self.shards.primary(topology, shard)?;
                let fields = server.ask(&calls).await?.pop().unwrap_or_default();
                guard::read_from(&server, &value(server.address(), fields)?)
            }
        });
        try_join_all(raised).await
    }
}

fn claims_of(
    key: &WorldKey,
    mut fields: HashMap<String, Bytes>,
    tick_epoch: u64,
    tick: u64,
) -> Result<Option<Vec<Claim>>, RdbError> {
    let mut is = |field: &str, number: u64| {
        fields.remove(field).is_some_and(|text| text.as_ref() == number.to_string().as_bytes())
    };
    let (of_tick, of_epoch) = (is("tick", tick), is("epoch", tick_epoch));
    if !of_tick || !of_epoch {
        return Ok(None);
    }
    let block = |(block, claim): (String, Bytes)| match block.parse() {
        Ok(block) if claim.len() >= RANK => Ok((block, claim.slice(RANK..))),
        _ => Err(RdbError::corrupt(key.text(), format!("field {block:?} is no claim"))),
    };
    let mut claims = fields.into_iter().map(block).collect::<Result<Vec<Claim>, RdbError>>()?;
    claims.sort_unstable_by_key(|(block, _)| *block);
    Ok(Some(claims))
}
