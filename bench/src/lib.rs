//! Workloads that measure a running Parlance: throughput, latency, memory, catch-up.
//!
//! The load generator runs on the same machine, so it does as little as it can: [`socket`] looks at frames in place.
//! What it sees is recorded and goes through the history checker in the end, so that speed never hides a loss.

pub mod backlog;
pub mod catch_up;
pub mod consumers;
pub mod demo;
pub mod floor;
pub mod idle;
pub mod pairs;
pub mod process;
pub mod rebuild;
pub mod socket;
pub mod takeover;
pub mod transactions;
