//! What every role stands on: configuration, telemetry, lifecycle, engine handles, the HTTP frame.

pub mod applied;
pub mod auth;
pub mod bus;
pub mod http;
pub mod limits;
pub mod live;
pub mod postgres;
