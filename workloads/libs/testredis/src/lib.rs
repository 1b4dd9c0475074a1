//! Real Redis servers for tests: one process each, gone with its handle, and whole data planes of them. For tests
//! only, so every failure is a panic that says what to do.

mod journal;
mod plane;
mod server;

pub use journal::{Cut, Journal};
pub use plane::{CLUSTER, DataPlane};
pub use server::TestServer;
