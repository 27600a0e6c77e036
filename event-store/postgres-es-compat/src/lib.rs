//! Reads the event store through the real postgres-es, so that the store stays open to that ecosystem.
