//! The few environment values a server boots from. Knows names and defaults; reads nothing else.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// One of Fortia's programs. Its name is also its user in every Redis group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// Accounts and sessions.
    Auth,
    /// The world's REST API.
    Game,
    /// Takes in and serves logs.
    Logserver,
    /// Carries keys from one database version to the next.
    Migrator,
    /// Brings up and re-shards clusters.
    Operator,
    /// Tells tickers when and what to tick.
    Scheduler,
    /// Ticks regions of the world.
    Ticker,
    /// Makes the first chunks of a world.
    Worldgen,
}

impl Service {
    /// All services, in order of name.
    pub const ALL: [Service; 8] = [
        Service::Auth,
        Service::Game,
        Service::Logserver,
        Service::Migrator,
        Service::Operator,
        Service::Scheduler,
        Service::Ticker,
        Service::Worldgen,
    ];

    /// The name used in user names, labels, images and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Service::Auth => "auth",
            Service::Game => "game",
            Service::Logserver => "logserver",
            Service::Migrator => "migrator",
            Service::Operator => "operator",
            Service::Scheduler => "scheduler",
            Service::Ticker => "ticker",
            Service::Worldgen => "worldgen",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names of the environment values.
pub mod var {
    /// Unique name of this process, in a cluster the pod's name (required).
    pub const INSTANCE: &str = "FORTIA_INSTANCE";
    /// The FortiaCluster's uid; every Redis group must carry it (required).
    pub const CLUSTER: &str = "FORTIA_CLUSTER";
    /// `host:port` of the control database's primary (required).
    pub const CONTROL_DB: &str = "FORTIA_CONTROL_DB";
    /// Password of the service's Redis user (default: none).
    pub const PASSWORD: &str = "FORTIA_PASSWORD";
    /// Address the service listens on (default `0.0.0.0:8080`).
    pub const LISTEN: &str = "FORTIA_LISTEN";
    /// Address of the admin endpoints (default `0.0.0.0:9000`).
    pub const ADMIN: &str = "FORTIA_ADMIN";
    /// `host:port` under which others reach this instance (default: the listen address).
    pub const ADVERTISE: &str = "FORTIA_ADVERTISE";
    /// Log filter in tracing's syntax (default `info`).
    pub const LOG: &str = "FORTIA_LOG";
}

/// What a server knows before it has reached the control database.
#[derive(Clone)]
pub struct Boot {
    /// Which program this is.
    pub service: Service,
    /// Unique name of this process.
    pub instance: String,
    /// Uid of the cluster it belongs to.
    pub cluster: String,
    /// `host:port` of the control database.
    pub control_db: String,
    /// Password of the Redis user named like the service; empty means none.
    pub password: String,
    /// Where the service listens.
    pub listen: SocketAddr,
    /// Where the admin endpoints listen.
    pub admin: SocketAddr,
    /// Where others reach this instance.
    pub advertise: String,
    /// Log filter.
    pub log: String,
}

impl fmt::Debug for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Boot")
            .field("service", &self.service)
            .field("instance", &self.instance)
            .field("cluster", &self.cluster)
            .field("control_db", &self.control_db)
            .field("listen", &self.listen)
            .field("admin", &self.admin)
            .field("advertise", &self.advertise)
            .finish_non_exhaustive()
    }
}

/// Why the environment is not one a server can boot from.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BootError {
    /// A required value is absent or empty.
    #[error("environment value {0} is not set: set it to {1}")]
    Missing(&'static str, &'static str),
    /// A value is not an address.
    #[error("environment value {0}={1} is not an address like 0.0.0.0:8080")]
    Address(&'static str, String),
}

impl Boot {
    /// Reads the process environment.
    ///
    /// # Errors
    /// When a required value is missing or an address cannot be parsed.
    pub fn from_env(service: Service) -> Result<Boot, BootError> {
        Boot::from(service, |name| std::env::var(name).ok())
    }

    /// Reads values through `get`; see [`var`] for names and defaults.
    ///
    /// # Errors
    /// As [`Boot::from_env`].
    pub fn from(service: Service, get: impl Fn(&str) -> Option<String>) -> Result<Boot, BootError> {
        let value = |name| get(name).filter(|v| !v.is_empty());
        let listen = address(var::LISTEN, value(var::LISTEN), "0.0.0.0:8080")?;
        Ok(Boot {
            service,
            instance: value(var::INSTANCE).ok_or(BootError::Missing(var::INSTANCE, "a unique name"))?,
            cluster: value(var::CLUSTER).ok_or(BootError::Missing(var::CLUSTER, "the cluster's uid"))?,
            control_db: value(var::CONTROL_DB)
                .ok_or(BootError::Missing(var::CONTROL_DB, "host:port of the control database"))?,
            password: value(var::PASSWORD).unwrap_or_default(),
            listen,
            admin: address(var::ADMIN, value(var::ADMIN), "0.0.0.0:9000")?,
            advertise: value(var::ADVERTISE).unwrap_or_else(|| listen.to_string()),
            log: value(var::LOG).unwrap_or_else(|| "info".into()),
        })
    }
}

fn address(name: &'static str, value: Option<String>, default: &str) -> Result<SocketAddr, BootError> {
    let text = value.unwrap_or_else(|| default.into());
    SocketAddr::from_str(&text).map_err(|_| BootError::Address(name, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(values: &[(&str, &str)]) -> Result<Boot, BootError> {
        Boot::from(Service::Game, |name| {
            values.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        })
    }

    const REQUIRED: [(&str, &str); 3] =
        [(var::INSTANCE, "game-0"), (var::CLUSTER, "uid"), (var::CONTROL_DB, "control-db:6379")];

    #[test]
    fn three_values_are_enough_to_boot() {
        let boot = boot(&REQUIRED).expect("boots");
        assert_eq!(boot.listen.port(), 8080);
        assert_eq!(boot.admin.port(), 9000);
        assert_eq!(boot.advertise, "0.0.0.0:8080");
    }

    #[test]
    fn a_missing_value_is_named_with_what_to_set() {
        let error = boot(&REQUIRED[..2]).expect_err("no control database");
        assert_eq!(
            error.to_string(),
            "environment value FORTIA_CONTROL_DB is not set: set it to host:port of the control database"
        );
    }

    #[test]
    fn a_listen_value_that_is_no_address_is_refused() {
        let mut values = REQUIRED.to_vec();
        values.push((var::LISTEN, "eighty"));
        assert_eq!(boot(&values).expect_err("no address"), BootError::Address(var::LISTEN, "eighty".into()));
    }

    #[test]
    fn a_password_is_never_printed() {
        let mut values = REQUIRED.to_vec();
        values.push((var::PASSWORD, "hunter2"));
        assert!(!format!("{:?}", boot(&values).expect("boots")).contains("hunter2"));
    }
}
