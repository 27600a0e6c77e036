//! What every role stands on: configuration, telemetry, lifecycle, engine handles, the HTTP frame.

pub mod postgres;
