//! The world as pure values: chunks, generation by seed, entities, and the three stages of a tick with their commit.
//! Knows no clock, no I/O, no async and no randomness of its own: the same input gives the same bytes.

pub mod block;
pub mod chunk;
pub mod entity;
pub mod generate;
pub mod goods;
pub mod order;
pub mod path;
pub mod rules;
pub mod start;
pub mod step;
pub mod wire;

/// Blocks from the lowest to the highest of a column; z is in `0..HEIGHT`.
pub const HEIGHT: u8 = 64;
