//! Commands to running servers and their acknowledgements. Knows their shape and whom they address.

use serde::{Deserialize, Serialize};

use crate::boot::{Boot, Service};

/// A command in the control database's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Chosen by the sender; acknowledgements carry it.
    pub id: String,
    /// Only this service obeys; none: all.
    #[serde(default)]
    pub service: Option<Service>,
    /// Only this instance obeys; none: all.
    #[serde(default)]
    pub instance: Option<String>,
    /// What to do.
    pub action: Action,
}

/// What a server can be told to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Action {
    /// Fetch the configuration again.
    Reload,
    /// Log by this filter from now on.
    LogLevel {
        /// In tracing's syntax, e.g. `info,fortia_game=debug`.
        filter: String,
    },
    /// Take no new work, finish what runs, then end.
    Drain,
}

/// An instance's answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The command's id.
    pub id: String,
    /// Who answers.
    pub service: Service,
    /// Which of them.
    pub instance: String,
    /// Why it could not be done; none: done.
    pub error: Option<String>,
}

impl Command {
    /// Whether the server that booted with `boot` is addressed.
    pub fn is_for(&self, boot: &Boot) -> bool {
        self.service.is_none_or(|s| s == boot.service)
            && self.instance.as_ref().is_none_or(|i| *i == boot.instance)
    }
}
