//! Schedulers, tickers and worldgen together, on real Redis servers.

mod carrying;
mod cluster;
mod forgetting;
mod graves;
mod growing;
mod playing;
mod program;
mod resharding;
mod strategies;
mod ticking;
