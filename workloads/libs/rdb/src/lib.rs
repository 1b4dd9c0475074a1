//! Fortia's Redis: where keys are, who may write them, the world, the control database and accounts.
//! Knows Redis and the key scheme; knows nothing of what chunks, entities and actions contain.

pub mod accounts;
mod connection;
pub mod control;
mod error;
pub mod guard;
pub mod keyspace;
pub mod migrate;
mod password;
mod place;
pub mod slots;
pub mod world;
mod write;

pub use error::RdbError;
