//! Hands the event store on to the bus, in position order; the only producer of the event topics.

mod backfill;
mod relay;
mod stored;
mod translate;

pub use backfill::LogBackfill;
pub use relay::{Options, Relay, heads};
pub use translate::{Untranslatable, translate};

#[cfg(test)]
mod testing;
