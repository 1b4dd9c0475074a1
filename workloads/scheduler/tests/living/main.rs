//! Schedulers, tickers and worldgen together, on real Redis servers.

mod cluster;
mod resharding;
mod ticking;
