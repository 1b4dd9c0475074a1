//! Values of both versions compared. Knows what is equal; what follows from a difference is the migrator's.
