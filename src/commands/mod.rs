//! One subcommand a file.

pub(crate) mod chat;
pub(crate) mod config;
pub(crate) mod migrate;
pub(crate) mod rebuild;
pub(crate) mod replay;
pub(crate) mod serve;
pub(crate) mod tail;
pub(crate) mod topics;
pub(crate) mod up;
pub(crate) mod verify;
