//! What the tests share: private engines, the running application on them, fault proxy, history checker, receiver of
//! traces.

pub mod app;
mod cluster;
mod database;
mod eventually;
mod fault_proxy;
pub mod history;
pub mod kafka;
pub mod otlp;
pub mod receivers;
pub mod redis;

pub use cluster::{Cluster, Durability};
pub use database::Database;
pub use eventually::{eventually, eventually_ok, eventually_some};
pub use fault_proxy::{Fault, FaultProxy};
