//! The control database's records as the operator reads and writes them. What they should say is decided elsewhere.

use fortia_common::boot::Service;
use fortia_common::command::{Action, Command};
use fortia_common::records::{
    COMMANDS, COMMITTED, CONFIG, CUTOVER, Config, CutoverRecord, FORGOTTEN, ForgottenRecord,
    INSTANCE_PATTERN, Instance, LEASE, Progress, TOPOLOGY, WORLD_PROGRESS, WorldProgress, progress_key,
};
use fortia_common::topology::Topology;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd, pipe};
use serde::de::DeserializeOwned;

use crate::crd::status::FortiaClusterStatus;

/// What the control database says.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    pub(super) topology: Option<Topology>,
    pub(super) config: Option<Config>,
    pub(super) tick: Option<u64>,
    pub(super) cutover: Option<CutoverRecord>,
    /// Why the world stands still, when a shard has forgotten something.
    pub(super) forgotten: Option<ForgottenRecord>,
    /// Whether a scheduler holds the lease.
    pub(super) led: bool,
    pub(super) instances: Vec<Instance>,
    pub(super) progress: Vec<Progress>,
    /// How far the world is made; read until it is.
    pub(super) world: Option<WorldProgress>,
}

/// Why a record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// The server refused or did not answer.
    #[error("control database: {0}")]
    Redis(#[from] RedisError),
    /// A record is not what it should be.
    #[error("record {0} cannot be read: {1}")]
    Corrupt(String, serde_json::Error),
}

/// Reads what decisions need.
pub(super) async fn read(
    mut open: MultiplexedConnection,
    status: &FortiaClusterStatus,
) -> Result<Records, RecordError> {
    type Text = Option<String>;
    type First = (Text, Text, Option<u64>, Text, Text, Option<u64>, (u64, u64));
    let (topology, config, tick, cutover, forgotten, expires, time): First = pipe()
        .cmd("GET")
        .arg(TOPOLOGY)
        .cmd("GET")
        .arg(CONFIG)
        .cmd("GET")
        .arg(COMMITTED)
        .cmd("GET")
        .arg(CUTOVER)
        .cmd("GET")
        .arg(FORGOTTEN)
        .cmd("HGET")
        .arg(LEASE)
        .arg("expires")
        .cmd("TIME")
        .query_async(&mut open)
        .await?;
    let now_ms = time.0 * 1000 + time.1 / 1000;
    let mut records = Records {
        topology: parse(TOPOLOGY, topology)?,
        config: parse(CONFIG, config)?,
        tick,
        cutover: parse(CUTOVER, cutover)?,
        forgotten: parse(FORGOTTEN, forgotten)?,
        led: expires.is_some_and(|expires| expires > now_ms),
        ..Records::default()
    };
    if !status.world_ready {
        let text = cmd("GET").arg(WORLD_PROGRESS).query_async(&mut open).await?;
        records.world = parse(WORLD_PROGRESS, text)?;
    }
    // Servers and progress matter only while a re-sharding runs.
    if let Some(rebalance) = &status.rebalance {
        records.instances = instances(&mut open).await?;
        if rebalance.phase.carries() {
            let keys: Vec<String> =
                (0..rebalance.from.shards).map(|index| progress_key(rebalance.to.version, index)).collect();
            let texts: Vec<Option<String>> = cmd("MGET").arg(&keys).query_async(&mut open).await?;
            for (key, text) in keys.iter().zip(texts) {
                records.progress.extend(parse::<Progress>(key, text)?);
            }
        }
    }
    Ok(records)
}

async fn instances(open: &mut MultiplexedConnection) -> Result<Vec<Instance>, RecordError> {
    let keys = scan(open, INSTANCE_PATTERN).await?;
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let texts: Vec<Option<String>> = cmd("MGET").arg(&keys).query_async(open).await?;
    let mut found = Vec::new();
    for (key, text) in keys.iter().zip(texts) {
        found.extend(parse::<Instance>(key, text)?);
    }
    Ok(found)
}

async fn scan(open: &mut MultiplexedConnection, pattern: &str) -> Result<Vec<String>, RedisError> {
    let (mut cursor, mut keys) = (0u64, Vec::new());
    loop {
        let (next, found): (u64, Vec<String>) =
            cmd("SCAN").arg(cursor).arg(&["MATCH", pattern, "COUNT", "1000"]).query_async(open).await?;
        keys.extend(found);
        cursor = next;
        if cursor == 0 {
            return Ok(keys);
        }
    }
}

fn parse<T: DeserializeOwned>(key: &str, text: Option<String>) -> Result<Option<T>, RecordError> {
    text.map(|text| serde_json::from_str(&text).map_err(|error| RecordError::Corrupt(key.to_owned(), error)))
        .transpose()
}

/// Writes the topology if the stored one still has epoch `expected` (0: there is none).
pub(super) async fn write_topology(
    mut open: MultiplexedConnection,
    expected: u64,
    topology: &Topology,
) -> Result<(), RecordError> {
    let json =
        serde_json::to_string(topology).map_err(|error| RecordError::Corrupt(TOPOLOGY.into(), error))?;
    cmd("FCALL")
        .arg(&["fortia_topology", "1", TOPOLOGY])
        .arg(expected)
        .arg(json)
        .query_async::<()>(&mut open)
        .await?;
    Ok(())
}

/// Writes the configuration and, if servers may run with an older one, tells them to fetch it.
pub(super) async fn write_config(
    mut open: MultiplexedConnection,
    config: &Config,
    replaces: bool,
) -> Result<(), RecordError> {
    let json = serde_json::to_string(config).map_err(|error| RecordError::Corrupt(CONFIG.into(), error))?;
    // Both or none: a configuration that nobody is told to fetch would never be written again.
    let mut both = pipe();
    both.atomic().cmd("SET").arg(CONFIG).arg(json).ignore();
    if replaces {
        let id = format!("config-{}", config.generation);
        let command = Command { id, service: None, instance: None, action: Action::Reload };
        let json =
            serde_json::to_string(&command).map_err(|error| RecordError::Corrupt(COMMANDS.into(), error))?;
        both.cmd("XADD").arg(COMMANDS).arg(&["MAXLEN", "~", "1000", "*", "json"]).arg(json).ignore();
    }
    both.query_async::<()>(&mut open).await?;
    Ok(())
}

/// Removes what a re-sharding left: the next may have the same version.
pub(super) async fn clear_rebalance(mut open: MultiplexedConnection) -> Result<(), RecordError> {
    let mut keys = scan(&mut open, "fortia:rebalance:*").await?;
    keys.push(CUTOVER.to_owned());
    cmd("DEL").arg(keys).query_async::<()>(&mut open).await?;
    Ok(())
}

/// Removes what pods have told of carrying to `version`: those of a new Job begin anew, and so does their proof.
pub(super) async fn clear_progress(mut open: MultiplexedConnection, version: u64) -> Result<(), RecordError> {
    let keys = scan(&mut open, &format!("fortia:rebalance:{version}:*")).await?;
    if !keys.is_empty() {
        cmd("DEL").arg(keys).query_async::<()>(&mut open).await?;
    }
    Ok(())
}

/// Servers that follow an older topology than `epoch`. Jobs of the re-sharding itself do not count.
pub(super) fn behind(instances: &[Instance], epoch: u64) -> Vec<String> {
    let mut names: Vec<String> = instances
        .iter()
        .filter(|i| i.topology_epoch < epoch && i.service != Service::Migrator)
        .map(|i| i.instance.clone())
        .collect();
    names.sort();
    names
}
