//! Which shards this process relays.

use event_store::Log;
use platform::leases::{Held, InUse, Use};
use schemas::Topic;
use tokio::sync::watch;

/// A shard of a topic.
pub(crate) type Place = (Topic, u16);

/// The shards that a relay leads: only those it publishes.
#[derive(Clone, Debug)]
pub enum Leadership {
    /// All of them, for the bus is this process's own.
    All,
    /// Those whose lease is held.
    Leases {
        /// What is held, as it changes.
        held: watch::Receiver<Held>,
        /// Where the leases are told what is still worked on.
        in_use: InUse,
    },
}

impl Leadership {
    /// Whether this shard is led at this very moment.
    pub(crate) fn leads(&self, (topic, shard): Place) -> bool {
        match self {
            Self::All => true,
            Self::Leases { held, .. } => held.borrow().has(topic, shard),
        }
    }

    /// A piece of work on a shard begins: others do not get it by our leave until this is dropped, so that they find on the
    /// bus what is being published.
    pub(crate) fn begin(&self, place: Place) -> Option<Use> {
        match self {
            Self::All => None,
            Self::Leases { in_use, .. } => Some(in_use.hold(place)),
        }
    }

    /// Counts the times when all that was led may have been another's for a while.
    pub(crate) fn lapses(&self) -> u64 {
        match self {
            Self::All => 0,
            Self::Leases { held, .. } => held.borrow().lapses(),
        }
    }

    /// Completes when it changed; `false` once it never will again, and nothing is led any more.
    pub(crate) async fn changed(&mut self) -> bool {
        match self {
            Self::All => std::future::pending().await,
            Self::Leases { held, .. } => held.changed().await.is_ok(),
        }
    }
}

/// Every shard of every topic: what leases for relaying are about.
pub fn places(log: &Log) -> impl Iterator<Item = (Topic, u16)> + use<> {
    let shards = log.shards();
    Topic::ALL.into_iter().flat_map(move |topic| (0..shards).map(move |shard| (topic, shard)))
}
