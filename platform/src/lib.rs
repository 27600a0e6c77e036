//! What every role stands on: configuration, telemetry, lifecycle, engine handles, the HTTP frame.

pub mod applied;
pub mod auth;
pub mod bus;
pub mod cache;
pub mod config;
pub mod http;
pub mod internal;
pub mod leases;
pub mod lifecycle;
pub mod limits;
pub mod live;
pub mod postgres;
pub mod push;
pub mod redis;
pub mod registry;
pub mod ring;
pub mod telemetry;
pub mod traces;
