//! Publishing records again, on request: a consumer that lost its place, or whoever keeps only what is recent.
//!
//! A request stands in a table, so that it outlives the relay that began with it. Whoever leads a shard publishes its
//! records again beside the live ones, a page at a time, and notes how far it got.

mod replayer;
pub mod requests;

pub(crate) use replayer::Replayer;
