//! The aggregates of Parlance: commands, events, state and refusals, as pure functions.
//!
//! Nothing here does I/O, reads a clock or draws a random number: ids and times come in with the command. Each
//! aggregate has a folder; `decide` turns state and command into events or a refusal, `evolve` applies an event.

pub mod kernel;

pub mod audit;
pub mod conversation;
pub mod message;
pub mod receipt;
pub mod session;
pub mod user;
