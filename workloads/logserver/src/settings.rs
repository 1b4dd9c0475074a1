//! What the log server is told by its environment. Knows names and defaults; reads nothing else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::age::{AgeError, length, size};
use crate::retention::Retention;

/// Where records come in and stay, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `FORTIA_DATA`: folder of the records (default `/data`).
    pub data: PathBuf,
    /// `FORTIA_OTLP_LISTEN`: address of the OTLP/gRPC receiver (default `0.0.0.0:4317`).
    pub otlp: SocketAddr,
    /// `FORTIA_LOG_MAX_AGE` (default `7d`) and `FORTIA_LOG_MAX_BYTES` (default `512Mi`).
    pub retention: Retention,
}

/// Why the environment is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// Not an address.
    #[error("environment value {0}={1} is not an address like 0.0.0.0:4317")]
    Address(&'static str, String),
    /// Not a length or size.
    #[error("environment value {0}: {1}")]
    Value(&'static str, AgeError),
}

impl Settings {
    /// Reads the process environment.
    ///
    /// # Errors
    /// When a value cannot be read.
    pub fn from_env() -> Result<Settings, SettingsError> {
        Settings::from(|name| std::env::var(name).ok())
    }

    /// Reads values through `get`.
    ///
    /// # Errors
    /// As [`Settings::from_env`].
    pub fn from(get: impl Fn(&str) -> Option<String>) -> Result<Settings, SettingsError> {
        let value =
            |name, default: &str| get(name).filter(|v| !v.is_empty()).unwrap_or_else(|| default.into());
        let (otlp, age, bytes) = ("FORTIA_OTLP_LISTEN", "FORTIA_LOG_MAX_AGE", "FORTIA_LOG_MAX_BYTES");
        let address = value(otlp, "0.0.0.0:4317");
        let max_age: Duration = length(&value(age, "7d")).map_err(|e| SettingsError::Value(age, e))?;
        let max_bytes = size(&value(bytes, "512Mi")).map_err(|e| SettingsError::Value(bytes, e))?;
        Ok(Settings {
            data: value("FORTIA_DATA", "/data").into(),
            otlp: address.parse().map_err(|_| SettingsError::Address(otlp, address))?,
            retention: Retention { max_age, max_bytes },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_a_default_and_nonsense_is_named() {
        let settings = Settings::from(|_| None).expect("defaults");
        assert_eq!((settings.otlp.port(), settings.retention.max_bytes), (4317, 512 << 20));
        let error = Settings::from(|name| (name == "FORTIA_LOG_MAX_AGE").then(|| "long".into()));
        assert!(
            error
                .expect_err("refused")
                .to_string()
                .starts_with("environment value FORTIA_LOG_MAX_AGE: \"long\"")
        );
    }
}
