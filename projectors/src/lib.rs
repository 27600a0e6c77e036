//! Projections of the event topics: the runner, read models, their rebuilding, and live fan-out.
//!
//! A projection is a folder here and a line in `registry.rs`. Several processes share the work by leases: see [`run`].

mod backoff;
mod careful;
mod checkpoints;
mod database;
mod projection;
mod rebuild;
mod registry;
mod run;
mod runner;

mod analytics;
mod audit;
mod conversations;
mod fan_out;
pub mod notifications;
mod receipts;
mod sessions;
mod timeline;
mod users;

pub use projection::{ApplyError, Consumer, Description, Projection};
pub use rebuild::{RebuildError, Rebuilt, rebuild};
pub use registry::list;
pub use run::{Parts, run};

#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;
