//! The messages of Fortia as Rust types, generated from `fortia/**.proto`. Knows shapes only, no behaviour.

/// Chunks, entities, orders and actions.
pub mod world {
    /// Package `fortia.world.v1`.
    pub mod v1 {
        #![allow(missing_docs, unreachable_pub)]
        tonic::include_proto!("fortia.world.v1");
    }
}

/// Frames between scheduler and tickers, and the record of a committed tick.
pub mod tick {
    /// Package `fortia.tick.v1`.
    pub mod v1 {
        #![allow(missing_docs, unreachable_pub)]
        tonic::include_proto!("fortia.tick.v1");
    }
}
