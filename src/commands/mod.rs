//! One subcommand a file.

pub(crate) mod audit;
pub(crate) mod chat;
pub(crate) mod config;
pub(crate) mod migrate;
pub(crate) mod rebuild;
pub(crate) mod replay;
pub(crate) mod role;
pub(crate) mod serve;
pub(crate) mod tail;
pub(crate) mod topics;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod webhook;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A time as arguments give it.
fn parse_time(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|error| format!("not an RFC 3339 time: {error}"))
}
