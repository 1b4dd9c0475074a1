//! What every Fortia server shares: how it boots, the records of the control database that operator and
//! servers exchange, and the life of a server process. Knows no Redis client, no HTTP, no Kubernetes.

pub mod boot;
pub mod command;
pub mod control;
pub mod ending;
pub mod failpoint;
pub mod functions;
pub mod pace;
pub mod placement;
pub mod records;
pub mod server;
pub mod topology;
