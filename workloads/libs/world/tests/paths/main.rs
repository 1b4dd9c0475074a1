//! Ways over the land: what they promise, and what they cost.

mod flow;
mod land;
mod ways;
