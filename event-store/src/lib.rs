//! The event log on PostgreSQL: group commit, dense positions, hash chain, cached aggregates.
