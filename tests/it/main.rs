//! Parlance as its users have it: the real binary, real sockets, real engines.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod analytics;
mod audit;
mod blows;
mod caches;
mod chat;
mod consumers;
mod crowd;
mod kills;
mod models;
mod notifications;
mod people;
mod rebuild;
mod records;
mod replay;
mod replica;
mod restart;
mod roles;
mod tail;
mod topics;
mod traces;
