//! fortia-ticker
