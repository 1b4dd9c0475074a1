//! fortia-worldgen
