//! What every role stands on: configuration, telemetry, lifecycle, engine handles, the HTTP frame.

pub mod applied;
pub mod bus;
pub mod live;
pub mod postgres;
