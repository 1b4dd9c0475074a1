//! The control database: configuration, topology, registrations, commands, the lease and the committed ticks.
//! Knows the records of `fortia_common::records` and how to read, wait for and swap them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fortia_common::boot::Boot;
use fortia_common::command::{Ack, Command};
use fortia_common::control::Control;
use fortia_common::records::{
    self, Config, CutoverRecord, ForgottenRecord, Instance, Progress, WorldProgress,
};
use fortia_common::topology::Topology;
use fortia_proto::tick::v1::Committed;
use futures::StreamExt;
use prost::Message;
use redis::aio::{MultiplexedConnection, PubSub};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::RdbError;
use crate::connection::{Login, RESPONSE, Server, Wanted, ask, value};

/// Commands or ticks read in one go.
const BATCH: u64 = 100;
/// How much longer than asked a blocking read may take before the server counts as gone.
const GRACE: Duration = Duration::from_secs(2);

/// The control database. Clones share their connections.
#[derive(Clone)]
pub struct ControlDb {
    server: Arc<Server>,
    waiting: Arc<Waiting>,
    /// Unique for this process, not only for its pod: a restarted scheduler must not take itself for the old one.
    holder: Arc<str>,
}

/// Who leads the schedulers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Whether the caller does.
    pub held: bool,
    /// Grows with every change of leader.
    pub epoch: u64,
    /// The leader's address.
    pub address: String,
}

impl ControlDb {
    /// The control database the process boots from. Connects to nothing before it is asked.
    pub fn connect(boot: &Boot) -> ControlDb {
        let wanted = Wanted {
            address: boot.control_db.clone(),
            login: Login::of(boot),
            group: "control-db".into(),
            index: 0,
        };
        let nonce = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
        ControlDb {
            server: Server::new(wanted.clone(), RESPONSE),
            waiting: Arc::new(Waiting {
                wanted,
                idle: Mutex::default(),
                listener: tokio::sync::Mutex::default(),
            }),
            holder: format!("{}/{nonce:016x}", boot.instance).into(),
        }
    }

    /// A name of this process that no other has, whatever its instance is called.
    pub fn process(&self) -> &str {
        &self.holder
    }

    /// Takes or renews the schedulers' lease for `ttl`; a `ttl` of zero gives it up. `address` is where tickers
    /// find this scheduler.
    ///
    /// # Errors
    /// When the control database does not answer.
    pub async fn lease(&self, address: &str, ttl: Duration) -> Result<Lease, RdbError> {
        let mut call = redis::cmd("FCALL");
        call.arg("fortia_lease").arg(1).arg(records::LEASE).arg(&*self.holder).arg(address);
        call.arg(ttl.as_millis() as u64);
        let (held, epoch, address): (bool, u64, String) = self.server.one(call).await?;
        Ok(Lease { held, epoch, address })
    }

    /// Address of the leading scheduler, while its lease lasts.
    ///
    /// # Errors
    /// When the control database does not answer.
    pub async fn leader(&self) -> Result<Option<String>, RdbError> {
        let mut pipe = redis::pipe();
        pipe.cmd("HMGET").arg(records::LEASE).arg("address").arg("expires").cmd("TIME");
        let [lease, time] = two(self.server.read(&pipe).await?);
        let (address, expires): (Option<String>, Option<u64>) = value(self.server.address(), lease)?;
        let (seconds, micros): (u64, u64) = value(self.server.address(), time)?;
        Ok(address.filter(|_| expires.unwrap_or(0) > seconds * 1000 + micros / 1000))
    }

    /// Number of the last committed tick; none before the first.
    ///
    /// # Errors
    /// When the control database does not answer.
    pub async fn committed(&self) -> Result<Option<u64>, RdbError> {
        self.server.get(get(records::COMMITTED)).await
    }

    /// Makes a tick the committed one: everybody sees it from now on.
    ///
    /// # Errors
    /// `NotLeader` when this process lost the lease of that epoch, `Conflict` when it is not the next tick;
    /// otherwise when the control database does not answer (then it may or may not be committed: see
    /// [`ControlDb::committed`]).
    pub async fn commit(&self, lease_epoch: u64, committed: &Committed) -> Result<(), RdbError> {
        let mut call = redis::cmd("FCALL");
        call.arg("fortia_commit").arg(3).arg(records::LEASE).arg(records::COMMITTED).arg(records::TICKS);
        call.arg(&*self.holder).arg(lease_epoch).arg(committed.tick).arg(committed.encode_to_vec());
        self.server.one(call).await
    }

    /// Ticks committed after `after`, oldest first, waiting up to `wait` for the first. About the last 600 are kept:
    /// a gap says that older ones are gone.
    ///
    /// # Errors
    /// When the control database does not answer or a record cannot be understood.
    pub async fn ticks(&self, after: u64, wait: Duration) -> Result<Vec<Committed>, RdbError> {
        let entries = self.waiting.stream(records::TICKS, &format!("{after}-0"), "pb", wait).await?;
        let decode = |(id, pb): (String, Bytes)| {
            Committed::decode(pb)
                .map_err(|error| RdbError::corrupt(format!("{} {id}", records::TICKS), error))
        };
        entries.into_iter().map(decode).collect()
    }

    /// Says which shard has forgotten something that was committed, or that none has.
    ///
    /// # Errors
    /// When the control database does not answer.
    pub async fn set_forgotten(&self, record: Option<&ForgottenRecord>) -> Result<(), RdbError> {
        let command = match record {
            Some(record) => set(records::FORGOTTEN, record)?,
            None => {
                let mut command = redis::cmd("DEL");
                command.arg(records::FORGOTTEN);
                command
            }
        };
        self.server.one(command).await
    }

    /// What the scheduler's last try to cut over came to.
    ///
    /// # Errors
    /// When the control database does not answer or the record cannot be understood.
    pub async fn cutover(&self) -> Result<Option<CutoverRecord>, RdbError> {
        self.json(records::CUTOVER).await
    }

    /// Writes what the last try to cut over came to.
    ///
    /// # Errors
    /// When the control database does not answer.
    pub async fn set_cutover(&self, record: &CutoverRecord) -> Result<(), RdbError> {
        self.server.one(set(records::CUTOVER, record)?).await
    }

    /// Writes a topology, if the one that is there has the expected epoch (0: none is there).
    ///
    /// # Errors
    /// `Conflict` when it has another, `NotLeader` when this process does not hold the lease of `lease_epoch`, if it acts as a
    /// leader; otherwise when the control database does not answer.
    pub async fn flip(
        &self,
        lease_epoch: Option<u64>,
        expected_epoch: u64,
        topology: &Topology,
    ) -> Result<(), RdbError> {
        let mut call = redis::cmd("FCALL");
        call.arg("fortia_topology").arg(if lease_epoch.is_some() { 2 } else { 1 }).arg(records::TOPOLOGY);
        if lease_epoch.is_some() {
            call.arg(records::LEASE);
        }
        call.arg(expected_epoch).arg(json(records::TOPOLOGY, topology)?);
        if let Some(epoch) = lease_epoch {
            call.arg(&*self.holder).arg(epoch);
        }
        self.server.one::<u64>(call).await.map(drop)
    }

    /// How far a migrator pod is in the re-sharding to `version`.
    ///
    /// # Errors
    /// When the control database does not answer or the record cannot be understood.
    pub async fn progress(&self, version: u64, index: u32) -> Result<Option<Progress>, RdbError> {
        self.json(&records::progress_key(version, index)).await
    }

    /// Writes how far a migrator pod is.
    ///
    /// # Errors
    /// When the control database does not answer.
    pub async fn set_progress(&self, version: u64, index: u32, progress: &Progress) -> Result<(), RdbError> {
        self.server.one(set(&records::progress_key(version, index), progress)?).await
    }

    /// Tells how far the world is made.
    ///
    /// # Errors
    /// When the control database does not answer.
    pub async fn set_world_progress(&self, progress: &WorldProgress) -> Result<(), RdbError> {
        self.server.one(set(records::WORLD_PROGRESS, progress)?).await
    }

    /// All registered servers.
    ///
    /// # Errors
    /// When the control database does not answer or a record cannot be understood.
    pub async fn instances(&self) -> Result<Vec<Instance>, RdbError> {
        let (mut cursor, mut keys) = (0u64, std::collections::BTreeSet::<String>::new());
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(records::INSTANCE_PATTERN).arg("COUNT").arg(1000);
            let (next, found): (u64, Vec<String>) = self.server.get(scan).await?;
            keys.extend(found);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        let mut pipe = redis::pipe();
        for key in &keys {
            pipe.add_command(get(key));
        }
        let answers = self.server.read(&pipe).await?;
        let mut instances = Vec::with_capacity(answers.len());
        for (key, answer) in keys.iter().zip(answers) {
            // None: it expired since the scan.
            if let Some(text) = value::<Option<String>>(self.server.address(), answer)? {
                instances.push(parse(key, &text)?);
            }
        }
        Ok(instances)
    }

    async fn json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, RdbError> {
        let text: Option<String> = self.server.get(get(key)).await?;
        text.map(|text| parse(key, &text)).transpose()
    }
}

impl Control for ControlDb {
    type Error = RdbError;

    async fn config(&self) -> Result<Option<Config>, RdbError> {
        self.json(records::CONFIG).await
    }

    async fn topology(&self) -> Result<Option<Topology>, RdbError> {
        self.json(records::TOPOLOGY).await
    }

    async fn topology_changed(&self, wait: Duration) -> Result<(), RdbError> {
        self.waiting.message(records::TOPOLOGY_CHANNEL, wait).await
    }

    async fn register(&self, instance: &Instance, ttl: Duration) -> Result<(), RdbError> {
        let mut command = set(&instance_key(instance), instance)?;
        command.arg("PX").arg(ttl.as_millis() as u64);
        self.server.one(command).await
    }

    async fn deregister(&self, instance: &Instance) -> Result<(), RdbError> {
        let mut command = redis::cmd("DEL");
        command.arg(instance_key(instance));
        self.server.one(command).await
    }

    async fn last_command(&self) -> Result<String, RdbError> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(records::COMMANDS).arg("+").arg("-").arg("COUNT").arg(1);
        let last: Vec<(String, redis::Value)> = self.server.get(command).await?;
        Ok(last.into_iter().next().map_or_else(|| "0-0".to_owned(), |(id, _)| id))
    }

    async fn commands(&self, after: &str, wait: Duration) -> Result<Vec<(String, Command)>, RdbError> {
        let mut commands = Vec::new();
        for (id, json) in self.waiting.stream(records::COMMANDS, after, "json", wait).await? {
            match serde_json::from_slice(&json) {
                Ok(command) => commands.push((id, command)),
                // A command that this version does not know must not keep the ones after it from being obeyed.
                Err(error) => tracing::warn!(id, %error, "command cannot be understood; passing over it"),
            }
        }
        Ok(commands)
    }

    async fn acknowledge(&self, ack: &Ack) -> Result<(), RdbError> {
        let mut command = redis::cmd("XADD");
        command.arg(records::ACKS).arg("MAXLEN").arg("~").arg(1000).arg("*").arg("json");
        command.arg(json(records::ACKS, ack)?);
        self.server.one(command).await
    }
}

fn instance_key(instance: &Instance) -> String {
    records::instance_key(instance.service, &instance.instance)
}

fn get(key: &str) -> redis::Cmd {
    let mut command = redis::cmd("GET");
    command.arg(key);
    command
}

fn set(key: &str, record: &impl Serialize) -> Result<redis::Cmd, RdbError> {
    let mut command = redis::cmd("SET");
    command.arg(key).arg(json(key, record)?);
    Ok(command)
}

fn json(key: &str, record: &impl Serialize) -> Result<String, RdbError> {
    serde_json::to_string(record).map_err(|error| RdbError::corrupt(key, error))
}

fn parse<T: DeserializeOwned>(key: &str, text: &str) -> Result<T, RdbError> {
    serde_json::from_str(text).map_err(|error| RdbError::corrupt(key, error))
}

fn two(answers: Vec<redis::Value>) -> [redis::Value; 2] {
    let mut answers = answers.into_iter();
    [answers.next().unwrap_or_default(), answers.next().unwrap_or_default()]
}

/// Connections that wait for something to happen: never shared with requests that must be answered at once.
struct Waiting {
    wanted: Wanted,
    idle: Mutex<Vec<MultiplexedConnection>>,
    listener: tokio::sync::Mutex<Option<PubSub>>,
}

impl Waiting {
    /// Entries of a stream after an id: (id, the value of `field`). A caller that stops waiting takes its
    /// connection down with it, so that nobody queues behind a wait that is of no more use.
    async fn stream(
        &self,
        key: &str,
        after: &str,
        field: &str,
        wait: Duration,
    ) -> Result<Vec<(String, Bytes)>, RdbError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.wanted.connect(None).await?,
        };
        let mut pipe = redis::pipe();
        // BLOCK 0 would wait for ever.
        let block = (wait.as_millis() as u64).max(1);
        pipe.cmd("XREAD").arg("COUNT").arg(BATCH).arg("BLOCK").arg(block).arg("STREAMS").arg(key).arg(after);
        let asked = ask(&mut connection, &self.wanted.address, &pipe);
        let mut answers = tokio::time::timeout(wait + GRACE, asked)
            .await
            .map_err(|_| self.wanted.silent(wait + GRACE))??;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        type Entries = Vec<(String, Vec<(String, Bytes)>)>;
        let streams: Option<Vec<(String, Entries)>> =
            value(&self.wanted.address, answers.pop().unwrap_or_default())?;
        let entries = streams.into_iter().flatten().flat_map(|(_, entries)| entries);
        entries
            .map(|(id, fields)| match fields.into_iter().find(|(name, _)| name == field) {
                Some((_, value)) => Ok((id, value)),
                None => Err(RdbError::corrupt(format!("{key} {id}"), format!("field {field} is missing"))),
            })
            .collect()
    }

    /// Waits up to `wait` for a message on the channel.
    async fn message(&self, channel: &str, wait: Duration) -> Result<(), RdbError> {
        let mut listener = self.listener.lock().await;
        if listener.is_none() {
            *listener = Some(self.wanted.subscribe(channel).await?);
        }
        let Some(open) = listener.as_mut() else { return Ok(()) };
        let ended = {
            let mut messages = open.on_message();
            matches!(tokio::time::timeout(wait, messages.next()).await, Ok(None))
        };
        if ended {
            *listener = None;
            let reason = "the connection that listens for topologies ended".into();
            return Err(RdbError::Unreachable { address: self.wanted.address.clone(), reason });
        }
        Ok(())
    }
}
