//! What the demo and the end-to-end tests share: a cluster to run on, an installed Fortia, players and viewers
//! that use the public REST API only, and a checker that compares two versions of the stored world.

pub mod api;
pub mod background;
pub mod blocks;
pub mod checker;
pub mod cluster;
pub mod crowd;
pub mod demo;
pub mod events;
pub mod fortia;
pub mod logs;
pub mod metrics;
pub mod player;
pub mod pulse;
pub mod reshard;
pub mod shared;
pub mod usage;
pub mod viewer;
