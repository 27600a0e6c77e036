//! What the tests share: a private PostgreSQL, a private Kafka, the running application, fault proxy, history checker.

pub mod app;
mod cluster;
mod database;
mod eventually;
mod fault_proxy;
pub mod history;
pub mod kafka;

pub use cluster::{Cluster, Durability};
pub use database::Database;
pub use eventually::{eventually, eventually_some};
pub use fault_proxy::{Fault, FaultProxy};
