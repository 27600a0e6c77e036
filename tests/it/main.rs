//! Parlance as its users have it: the real binary, real sockets, real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod chat;
mod crowd;
mod kills;
mod people;
mod rebuild;
mod restart;
