//! Hands the event store on to the bus, in position order; the only producer of the event topics.

mod backfill;
mod feed;
mod leadership;
mod options;
mod others;
mod relay;
pub mod replay;
mod running;
mod schedule;
mod shard;
mod status;
mod stored;
mod translate;
mod work;

pub use backfill::LogBackfill;
pub use leadership::{Leadership, places};
pub use options::Options;
pub use others::Others;
pub use relay::{Relay, heads};
pub use status::{RelayStatus, Stall, Standing};
pub use translate::{Untranslatable, translate};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
