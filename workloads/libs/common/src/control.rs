//! What a server asks of the control database. Knows the questions; `fortia-rdb` knows how to ask them.

use std::future::Future;
use std::time::Duration;

use crate::command::{Ack, Command};
use crate::records::{Config, Instance};
use crate::topology::Topology;

/// The control database as a server sees it.
pub trait Control: Clone + Send + Sync + 'static {
    /// Why a question was not answered.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The configuration, once the operator has written one.
    fn config(&self) -> impl Future<Output = Result<Option<Config>, Self::Error>> + Send;

    /// The topology, once the operator has written one.
    fn topology(&self) -> impl Future<Output = Result<Option<Topology>, Self::Error>> + Send;

    /// Waits up to `wait` for word that the topology has changed. Word may be lost: poll as well.
    fn topology_changed(&self, wait: Duration) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Writes or renews the instance's record, which expires after `ttl`.
    fn register(
        &self,
        instance: &Instance,
        ttl: Duration,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Removes the instance's record.
    fn deregister(&self, instance: &Instance) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Id of the last command in the stream: where a server that starts now begins to listen.
    fn last_command(&self) -> impl Future<Output = Result<String, Self::Error>> + Send;

    /// Commands after stream id `after`, waiting up to `wait` for the first; each with its stream id.
    fn commands(
        &self,
        after: &str,
        wait: Duration,
    ) -> impl Future<Output = Result<Vec<(String, Command)>, Self::Error>> + Send;

    /// Acknowledges a command.
    fn acknowledge(&self, ack: &Ack) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
