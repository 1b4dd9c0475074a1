//! fortia-migrator
