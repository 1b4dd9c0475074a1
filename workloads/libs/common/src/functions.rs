//! The server-side functions loaded into every Redis group. Knows their source and names, not how they are called.
//!
//! `FCALL` does not lend rights: the commands inside are checked against the caller's user. What they need:
//!
//! | function | commands | keys |
//! |---|---|---|
//! | `fortia_guard` | `HMGET HSET UNLINK` | `fortia:guard`, `v<n>:dirty` |
//! | `fortia_slots` | `HMGET HSET`, in state `copying` `HINCRBY` | `fortia:guard`, `v<n>:*` |
//! | `fortia_write` | `HMGET HSET TYPE`, and by operation: HSET: `HSET`; SADD: `SADD`; SREM: `SREM`; ACT: `LLEN RPUSH SADD`; DEL: `DEL`; in state `copying` `HINCRBY HSET` | `fortia:guard`, `v<n>:*` |
//! | `fortia_part` | `HMGET HSET HINCRBY` | `fortia:guard` |
//! | `fortia_take` | `HMGET HGET HSET SMEMBERS SREM DEL`, in state `copying` `HINCRBY HDEL` | `fortia:guard`, `v<n>:*` |
//! | `fortia_lock` | `HMGET HSET TYPE DEL EXPIRE` | `fortia:guard`, `v<n>:*` |
//! | `fortia_attempt`, `fortia_fence` | `HMGET HGET HSET` | `fortia:guard` |
//! | `fortia_carry` | `HMGET HGET MSET UNLINK SET APPEND HSET SADD RPUSH PEXPIREAT` | `fortia:guard`, `v<n>:*` |
//! | `fortia_stay` | `HMGET HGET COPY UNLINK SADD` | `fortia:guard`, `v<n>:*` |
//! | `fortia_clean` | `HMGET HGET HDEL` | `fortia:guard`, `v<n>:dirty` |
//! | `fortia_note` | `HMGET HINCRBY HSET` | `fortia:guard`, `v<n>:dirty` |
//! | `fortia_checkpoint` | `HMGET HGET HSET` | `fortia:guard`, `v<n>:checkpoint` |
//! | `fortia_unlink` | `HMGET UNLINK` | `fortia:guard`, `v<n>:*` |
//! | `fortia_topology` | `GET SET PUBLISH`, of a scheduler `HMGET` | `fortia:topology`, `fortia:lease:scheduler`, channel `fortia:topology` |
//! | `fortia_lease` | `TIME HMGET HSET` | `fortia:lease:scheduler` |
//! | `fortia_commit` | `HMGET GET SET DEL XADD` | `fortia:lease:scheduler`, `fortia:committed`, `fortia:ticks` |

/// Name of the library, as its source says.
pub const NAME: &str = "fortia";

/// Source of the function library `fortia`, for `FUNCTION LOAD REPLACE`.
pub const LIBRARY: &str = concat!(
    include_str!("functions/tick.lua"),
    include_str!("functions/control.lua"),
    include_str!("functions/migrate.lua")
);
