//! Proof that a source shard and its target hold the same, both ways, by digest. Knows nothing of why they differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fortia_rdb::keyspace::KeyText;
use futures::stream::TryStreamExt;

use crate::MigrateError;
use crate::carry::{AT_ONCE, Carry};
use crate::report::Report;

/// Where source and target are not the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Difference {
    /// The target lacks the key or has another value.
    Unequal(KeyText),
    /// A target shard has a key that the source has not, or that belongs on another shard.
    Surplus { shard: u32, key: KeyText },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Unequal(key) => write!(f, "{key}"),
            Difference::Surplus { shard, key } => write!(f, "{key} (surplus on shard {shard})"),
        }
    }
}

/// All differences: every key of the source against its target, then every key of every target shard that came
/// (or would have come) from this source against it.
pub(crate) async fn differences(
    carry: &Carry,
    report: &mut Report<'_>,
) -> Result<BTreeSet<Difference>, MigrateError> {
    let mut different = BTreeSet::new();
    let batches = carry.batches(carry.index, carry.from.version);
    let compared = batches.map_ok(|keys| async move { forward(carry, carry.own(keys)).await });
    let mut compared = std::pin::pin!(compared.try_buffer_unordered(AT_ONCE));
    while let Some((equal, unequal)) = compared.try_next().await? {
        report.progress.verified += equal;
        different.extend(unequal);
        report.step().await?;
    }
    for shard in 0..carry.from.shards.max(carry.to.shards) {
        let batches = carry.batches(shard, carry.to.version);
        let compared = batches.map_ok(|keys| async move { backward(carry, shard, keys).await });
        let mut compared = std::pin::pin!(compared.try_buffer_unordered(AT_ONCE));
        while let Some(found) = compared.try_next().await? {
            different.extend(found);
            report.step().await?;
        }
    }
    Ok(different)
}

/// Compares keys of the source with their targets: how many are equal, and the others.
async fn forward(carry: &Carry, keys: Vec<KeyText>) -> Result<(u64, Vec<Difference>), MigrateError> {
    let mut by_shard: BTreeMap<u32, Vec<KeyText>> = BTreeMap::new();
    for key in keys {
        by_shard.entry(key.shard(&carry.to)).or_default().push(key);
    }
    let (mut equal, mut unequal) = (0, Vec::new());
    for (shard, keys) in by_shard {
        let source = carry.migration.digests(carry.index, carry.from.version, &keys).await?;
        let target = carry.migration.digests(shard, carry.to.version, &keys).await?;
        for (key, (source, target)) in keys.into_iter().zip(source.into_iter().zip(target)) {
            match source == target {
                true => equal += 1,
                false => unequal.push(Difference::Unequal(key)),
            }
        }
    }
    Ok((equal, unequal))
}

/// Compares keys found on a target shard with the source they must have come from.
async fn backward(carry: &Carry, shard: u32, keys: Vec<KeyText>) -> Result<Vec<Difference>, MigrateError> {
    let of_source = keys.into_iter().filter(|key| key.shard(&carry.from) == carry.index);
    let (placed, misplaced): (Vec<KeyText>, Vec<KeyText>) =
        of_source.partition(|key| key.shard(&carry.to) == shard);
    let source = carry.migration.digests(carry.index, carry.from.version, &placed).await?;
    let target = carry.migration.digests(shard, carry.to.version, &placed).await?;
    let mut different: Vec<Difference> =
        misplaced.into_iter().map(|key| Difference::Surplus { shard, key }).collect();
    for (key, (source, target)) in placed.into_iter().zip(source.into_iter().zip(target)) {
        match source {
            None if target.is_some() => different.push(Difference::Surplus { shard, key }),
            source if source != target => different.push(Difference::Unequal(key)),
            _ => {}
        }
    }
    Ok(different)
}

/// Copies again what is unequal and removes what is surplus.
pub(crate) async fn mend(carry: &Carry, different: BTreeSet<Difference>) -> Result<(), MigrateError> {
    let mut unequal = Vec::new();
    let mut surplus: BTreeMap<u32, Vec<KeyText>> = BTreeMap::new();
    for one in different {
        match one {
            Difference::Unequal(key) => unequal.push(key),
            Difference::Surplus { shard, key } => surplus.entry(shard).or_default().push(key),
        }
    }
    for (shard, keys) in surplus {
        carry.migration.remove(shard, &carry.to, &keys).await?;
    }
    for keys in unequal.chunks(256) {
        carry.migration.copy(carry.index, &carry.from, &carry.to, keys).await?;
    }
    Ok(())
}
