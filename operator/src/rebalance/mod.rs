//! Re-sharding the living world: what to do next is decided purely; the operator decides, Jobs carry, the scheduler flips.

mod carry;
pub mod job;
pub mod leave;
pub(crate) mod order;
pub mod phase;
pub mod plan;
#[cfg(test)]
mod simulation;
