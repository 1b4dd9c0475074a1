//! Worlds that tick, in memory: several territories with their letters between them, as tickers and scheduler make it.

mod cluster;
mod fights;
mod goods;
mod growing;
mod halo;
mod orders;
mod partition;
mod strategies;
mod walking;
mod wealth;
