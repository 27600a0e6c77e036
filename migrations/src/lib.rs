//! Forward-only SQL of the event store, the read models and shared state.
