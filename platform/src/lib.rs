//! What every role stands on: configuration, telemetry, lifecycle, engine handles, the HTTP frame.

pub mod applied;
pub mod bus;
pub mod config;
pub mod lifecycle;
pub mod live;
pub mod postgres;
pub mod telemetry;
