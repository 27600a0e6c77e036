//! The event contract as files: what is published is what the types say, and what was published stays.
//!
//! `PARLANCE_WRITE_CONTRACT=1 cargo test -p schemas --test contract` writes what the types say, where that is no more than
//! an addition: the newest version of each schema, the AsyncAPI document, and the list of what is published.

mod asyncapi;
mod files;
mod fixtures;
mod history;
mod json_schemas;
mod published;
