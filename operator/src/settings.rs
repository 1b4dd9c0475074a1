//! The operator's own settings from its environment. Knows names and defaults; reads nothing else.

use std::net::SocketAddr;

use fortia_common::failpoint;

use crate::crd::spec::PullPolicy;

/// What the operator is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Only this namespace is watched; none: all.
    pub watch_namespace: Option<String>,
    /// Name of this process in the Lease.
    pub identity: String,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Prefix of the workload images.
    pub image_repository: String,
    /// Tag of the workload images.
    pub image_tag: String,
    /// When nodes pull images.
    pub pull_policy: PullPolicy,
    /// Image of the Redis servers.
    pub valkey_image: String,
    /// Where the admin endpoints listen.
    pub admin: SocketAddr,
    /// Log filter.
    pub log: String,
    /// Where the log is shipped: an OTLP/gRPC receiver like `http://host:4317`; none: nowhere.
    pub logs: Option<String>,
    /// Points at which programs are made to fail, for those who study faults; none: nowhere.
    pub failpoints: Option<String>,
}

/// Why the environment is not one the operator can start with.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// Not a pull policy.
    #[error("environment value FORTIA_IMAGE_PULL_POLICY={0} is unknown: use Always, IfNotPresent or Never")]
    PullPolicy(String),
    /// Not an address.
    #[error("environment value FORTIA_ADMIN={0} is not an address like 0.0.0.0:9000")]
    Admin(String),
}

impl Settings {
    /// Reads the process environment.
    ///
    /// # Errors
    /// When a value cannot be parsed.
    pub fn from_env() -> Result<Settings, SettingsError> {
        Settings::from(|name| std::env::var(name).ok())
    }

    /// Reads values through `get`.
    ///
    /// # Errors
    /// As [`Settings::from_env`].
    pub fn from(get: impl Fn(&str) -> Option<String>) -> Result<Settings, SettingsError> {
        let value = |name| get(name).filter(|v| !v.is_empty());
        let or = |name, default: &str| value(name).unwrap_or_else(|| default.into());
        let admin = or("FORTIA_ADMIN", "0.0.0.0:9000");
        Ok(Settings {
            watch_namespace: value("FORTIA_WATCH_NAMESPACE"),
            identity: value("POD_NAME")
                .or_else(|| value("HOSTNAME"))
                .unwrap_or_else(|| "fortia-operator".into()),
            namespace: or("POD_NAMESPACE", "default"),
            image_repository: or("FORTIA_IMAGE_REPOSITORY", "ghcr.io/fortia"),
            image_tag: or("FORTIA_IMAGE_TAG", env!("CARGO_PKG_VERSION")),
            pull_policy: pull_policy(&or("FORTIA_IMAGE_PULL_POLICY", "IfNotPresent"))?,
            valkey_image: or("FORTIA_VALKEY_IMAGE", "docker.io/valkey/valkey:8"),
            admin: admin.parse().map_err(|_| SettingsError::Admin(admin))?,
            log: or("FORTIA_LOG", "info"),
            logs: value("FORTIA_LOGS"),
            failpoints: value(failpoint::VARIABLE),
        })
    }
}

fn pull_policy(text: &str) -> Result<PullPolicy, SettingsError> {
    match text {
        "Always" => Ok(PullPolicy::Always),
        "IfNotPresent" => Ok(PullPolicy::IfNotPresent),
        "Never" => Ok(PullPolicy::Never),
        other => Err(SettingsError::PullPolicy(other.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_environment_is_enough() {
        let settings = Settings::from(|_| None).expect("defaults");
        assert_eq!(settings.watch_namespace, None);
        assert_eq!(settings.admin.port(), 9000);
    }

    #[test]
    fn an_unknown_pull_policy_is_refused_with_the_known_ones() {
        let get = |name: &str| (name == "FORTIA_IMAGE_PULL_POLICY").then(|| "Sometimes".to_owned());
        let error = Settings::from(get).expect_err("unknown");
        assert!(error.to_string().contains("use Always, IfNotPresent or Never"));
    }
}
