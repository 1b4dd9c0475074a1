//! The server-side functions loaded into every Redis group. Knows their source and names, not how they are called.

/// Source of the function library `fortia`, for `FUNCTION LOAD REPLACE`.
pub const LIBRARY: &str = include_str!("functions.lua");
