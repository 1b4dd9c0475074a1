//! How the operator looks at and commands Redis servers. Knows connections and commands, decides nothing.

use std::collections::HashMap;
use std::time::Duration;

use fortia_common::boot::Service;
use fortia_common::functions::{LIBRARY, NAME};
use fortia_common::records::GUARD;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError, cmd,
};
use tokio::sync::Mutex;

use super::state::{Guard, Role, Seen, Watermark};
use crate::build::acl;
use crate::build::names::GroupId;
use crate::build::secrets::{Passwords, REPLICA};

const CONNECT: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(3);

/// A Redis server did not do what it was told.
#[derive(Debug, thiserror::Error)]
#[error("redis pod {pod} ({address}): {doing}: {source}")]
pub struct RedisFailed {
    pod: String,
    address: String,
    doing: &'static str,
    source: RedisError,
}

/// A pod with a Redis server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the pod.
    pub pod: String,
    /// Its uid: connections are never shared between two lives of a name.
    pub uid: String,
    /// Its address.
    pub ip: String,
    /// Port of its Redis server.
    pub port: u16,
}

/// What a guard is set to at first admission, and when a re-sharding is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstGuard {
    /// Uid of the cluster.
    pub uid: String,
    /// Epoch of the topology.
    pub epoch: u64,
    /// The version that serves.
    pub version: u64,
    /// Whether world writes are refused until the scheduler opens it.
    pub frozen: bool,
}

/// Connections to Redis servers, by uid of their pod.
#[derive(Default)]
pub struct Redis {
    open: Mutex<HashMap<String, MultiplexedConnection>>,
}

impl Redis {
    /// A connection as user `operator`.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses the password.
    pub async fn connect(
        &self,
        target: &Target,
        passwords: &Passwords,
    ) -> Result<MultiplexedConnection, RedisFailed> {
        if let Some(open) = self.open.lock().await.get(&target.uid) {
            return Ok(open.clone());
        }
        let user = Service::Operator.as_str();
        let settings = RedisConnectionInfo::default().set_username(user).set_password(passwords.of(user));
        let open = async {
            let info = ConnectionAddr::Tcp(target.ip.clone(), target.port).into_connection_info()?;
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT))
                .set_response_timeout(Some(ANSWER));
            Client::open(info.set_redis_settings(settings))?
                .get_multiplexed_async_connection_with_config(&config)
                .await
        }
        .await
        .map_err(failed(target, "connect"))?;
        self.open.lock().await.insert(target.uid.clone(), open.clone());
        Ok(open)
    }

    /// Closes the connection to a pod, so that the next question opens a new one.
    pub async fn forget(&self, target: &Target) {
        self.open.lock().await.remove(&target.uid);
    }

    /// Looks at a server.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn see(&self, target: &Target, passwords: &Passwords) -> Result<Seen, RedisFailed> {
        let seen = self.try_see(target, passwords).await;
        if seen.is_err() {
            self.forget(target).await;
        }
        seen
    }

    async fn try_see(&self, target: &Target, passwords: &Passwords) -> Result<Seen, RedisFailed> {
        let mut open = self.connect(target, passwords).await?;
        let info: String = cmd("INFO").query_async(&mut open).await.map_err(failed(target, "INFO"))?;
        let mut seen = parse_info(&info);
        if !seen.loading {
            let (keys, guard): (u64, HashMap<String, String>) = redis::pipe()
                .cmd("DBSIZE")
                .cmd("HGETALL")
                .arg(GUARD)
                .query_async(&mut open)
                .await
                .map_err(failed(target, "read guard"))?;
            seen.keys = keys;
            seen.guard = parse_guard(&guard);
        }
        Ok(seen)
    }

    /// Makes a server a primary: out of the fence, with the functions, and with a guard if it has none.
    ///
    /// # Errors
    /// When a command is refused; the server may then be a primary without a guard, which refuses all writes.
    pub async fn admit(
        &self,
        target: &Target,
        passwords: &Passwords,
        group: GroupId,
        guard: Option<&FirstGuard>,
    ) -> Result<(), RedisFailed> {
        let mut open = self.connect(target, passwords).await?;
        set_follower(&mut open, target, passwords).await?;
        tell(&mut open, target, "REPLICAOF NO ONE", &["REPLICAOF", "NO", "ONE"]).await?;
        load_library(&mut open, target).await?;
        if let Some(first) = guard {
            set_guard(&mut open, target, group, first).await?;
        }
        // On disk before it is called admitted. Older servers do not know the command: they sync within a second.
        let _ = cmd("WAITAOF").arg(&[1, 0, 1000]).query_async::<redis::Value>(&mut open).await;
        Ok(())
    }

    /// Sets the guard of an admitted primary: no target, and its closed tick is kept. The same again changes nothing.
    ///
    /// # Errors
    /// When the server does not answer, is no primary, or has a guard of another group or a later epoch.
    pub async fn guard(
        &self,
        target: &Target,
        passwords: &Passwords,
        group: GroupId,
        guard: &FirstGuard,
    ) -> Result<(), RedisFailed> {
        let mut open = self.connect(target, passwords).await?;
        set_guard(&mut open, target, group, guard).await
    }

    /// Gives an admitted primary the function library of this operator, if it has another or none; whether it had. The
    /// server replaces it between two calls, and its replicas follow.
    ///
    /// # Errors
    /// When the server does not answer, or is no primary.
    pub async fn renew_library(&self, target: &Target, passwords: &Passwords) -> Result<bool, RedisFailed> {
        let mut open = self.connect(target, passwords).await?;
        let libraries: Vec<HashMap<String, redis::Value>> = cmd("FUNCTION")
            .arg(&["LIST", "LIBRARYNAME", NAME, "WITHCODE"])
            .query_async(&mut open)
            .await
            .map_err(failed(target, "FUNCTION LIST"))?;
        // Compared as a whole: nothing that is recorded beside the library could be true of another.
        let code = libraries.first().and_then(|library| library.get("library_code"));
        if code
            .is_some_and(|code| redis::from_redis_value_ref::<String>(code).is_ok_and(|code| code == LIBRARY))
        {
            return Ok(false);
        }
        load_library(&mut open, target).await?;
        Ok(true)
    }

    /// Gives the services the rights they have on an admitted primary.
    ///
    /// # Errors
    /// When the server refuses a rule.
    pub async fn give_rights(
        &self,
        target: &Target,
        passwords: &Passwords,
        group: GroupId,
        versions: &[u64],
    ) -> Result<(), RedisFailed> {
        let mut open = self.connect(target, passwords).await?;
        let mut pipe = redis::pipe();
        for service in Service::ALL.into_iter().filter(|s| *s != Service::Operator) {
            pipe.cmd("ACL")
                .arg("SETUSER")
                .arg(service.as_str())
                .arg(acl::admitted(service, group, versions))
                .ignore();
        }
        pipe.query_async::<()>(&mut open).await.map_err(failed(target, "ACL SETUSER"))
    }

    /// Says when a server syncs its file: `always` or `everysec`.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn sync(&self, target: &Target, passwords: &Passwords, how: &str) -> Result<(), RedisFailed> {
        let mut open = self.connect(target, passwords).await?;
        tell(&mut open, target, "CONFIG SET", &["CONFIG", "SET", "appendfsync", how]).await
    }

    /// Lets a server follow the primary at this address.
    ///
    /// # Errors
    /// When a command is refused.
    pub async fn attach(
        &self,
        target: &Target,
        passwords: &Passwords,
        (host, port): (&str, u16),
    ) -> Result<(), RedisFailed> {
        let mut open = self.connect(target, passwords).await?;
        set_follower(&mut open, target, passwords).await?;
        tell(&mut open, target, "REPLICAOF", &["REPLICAOF", host, &port.to_string()]).await
    }

    /// Counts world keys by a scan of the whole server: of one version, or of any.
    ///
    /// # Errors
    /// When the server does not answer to the end.
    pub async fn world_keys(
        &self,
        target: &Target,
        passwords: &Passwords,
        version: Option<u64>,
    ) -> Result<u64, RedisFailed> {
        let mut open = self.connect(target, passwords).await?;
        let pattern = version.map_or_else(|| "*".to_owned(), |version| format!("v{version}:*"));
        let (mut cursor, mut found) = (0u64, 0u64);
        loop {
            let (next, keys): (u64, Vec<Vec<u8>>) = cmd("SCAN")
                .arg(cursor)
                .arg(&["MATCH", &pattern, "COUNT", "1000"])
                .query_async(&mut open)
                .await
                .map_err(failed(target, "SCAN"))?;
            found += keys.iter().filter(|key| !key.starts_with(b"fortia:")).count() as u64;
            cursor = next;
            if cursor == 0 {
                return Ok(found);
            }
        }
    }
}

async fn load_library(open: &mut MultiplexedConnection, target: &Target) -> Result<(), RedisFailed> {
    tell(open, target, "FUNCTION LOAD", &["FUNCTION", "LOAD", "REPLACE", LIBRARY]).await
}

async fn set_guard(
    open: &mut MultiplexedConnection,
    target: &Target,
    group: GroupId,
    guard: &FirstGuard,
) -> Result<(), RedisFailed> {
    let state = if guard.frozen { "frozen" } else { "open" };
    cmd("FCALL")
        .arg(&["fortia_guard", "1", GUARD, &guard.uid])
        .arg(group.to_string())
        .arg(group.index())
        .arg(guard.epoch)
        .arg(guard.version)
        .arg(&[state, "0", ""])
        .query_async::<()>(open)
        .await
        .map_err(failed(target, "set guard"))
}

/// Sets what a server needs to follow another one, or to be followed after a change of roles.
async fn set_follower(
    open: &mut MultiplexedConnection,
    target: &Target,
    passwords: &Passwords,
) -> Result<(), RedisFailed> {
    let password = passwords.of(REPLICA);
    tell(open, target, "CONFIG SET", &["CONFIG", "SET", "masteruser", REPLICA, "masterauth", password]).await
}

async fn tell(
    open: &mut MultiplexedConnection,
    target: &Target,
    doing: &'static str,
    words: &[&str],
) -> Result<(), RedisFailed> {
    let mut command = redis::Cmd::new();
    command.arg(words);
    command.query_async::<()>(open).await.map_err(failed(target, doing))
}

fn failed(target: &Target, doing: &'static str) -> impl FnOnce(RedisError) -> RedisFailed {
    let (pod, address) = (target.pod.clone(), format!("{}:{}", target.ip, target.port));
    move |source| RedisFailed { pod, address, doing, source }
}

fn parse_info(info: &str) -> Seen {
    let fields: HashMap<&str, &str> =
        info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
    let text = |name: &str| fields.get(name).copied().unwrap_or_default();
    let number = |name: &str| text(name).parse::<u64>().unwrap_or_default();
    let role = match (text("role"), text("master_host"), text("master_port")) {
        ("master", _, _) => Role::Primary,
        (_, "127.0.0.1", "1") => Role::Fenced,
        (_, host, _) => {
            Role::ReplicaOf { host: host.to_owned(), link_up: text("master_link_status") == "up" }
        }
    };
    Seen {
        run_id: text("run_id").to_owned(),
        role,
        loading: text("loading") != "0",
        keys: 0,
        used_memory: number("used_memory"),
        idle_memory: number("used_memory_startup") + number("mem_replication_backlog"),
        file_size: number("aof_current_size"),
        guard: None,
    }
}

fn parse_guard(fields: &HashMap<String, String>) -> Option<Guard> {
    let number = |name: &str| fields.get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    Some(Guard {
        uid: fields.get("uid")?.clone(),
        group: fields.get("group").cloned().unwrap_or_default(),
        index: u32::try_from(number("index")).unwrap_or(u32::MAX),
        watermark: Watermark {
            parts: number("parts"),
            epoch: number("epoch"),
            tick_epoch: number("tick_epoch"),
            closed: number("closed"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_as_it_boots_is_seen_as_fenced() {
        let seen =
            parse_info("run_id:abc\r\nloading:0\r\nrole:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:1\r\n");
        assert_eq!((seen.role, seen.loading, seen.run_id.as_str()), (Role::Fenced, false, "abc"));
    }

    #[test]
    fn a_hash_without_uid_is_no_guard() {
        assert_eq!(parse_guard(&HashMap::from([("group".into(), "shard-0".into())])), None);
    }
}
