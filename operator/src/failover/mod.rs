//! Who is primary of a Redis group. Today: first admission and the return of a recorded primary.

pub mod redis;
pub mod state;
pub mod step;
