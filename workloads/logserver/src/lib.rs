//! fortia-logserver
