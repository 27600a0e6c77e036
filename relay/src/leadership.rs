//! Which shards this process relays.

use event_store::Log;
use platform::leases::Held;
use schemas::Topic;
use tokio::sync::watch;

/// A shard of a topic.
pub(crate) type Place = (Topic, u16);

/// The shards that a relay leads: only those it publishes.
#[derive(Clone, Debug)]
pub enum Leadership {
    /// All of them, for the bus is this process's own.
    All,
    /// Those whose lease is held, as it changes.
    Leases(watch::Receiver<Held>),
}

impl Leadership {
    /// Whether this shard is led at this very moment.
    pub(crate) fn leads(&self, (topic, shard): Place) -> bool {
        match self {
            Self::All => true,
            Self::Leases(held) => held.borrow().has(topic, shard),
        }
    }

    /// Counts the times when all that was led may have been another's for a while.
    pub(crate) fn lapses(&self) -> u64 {
        match self {
            Self::All => 0,
            Self::Leases(held) => held.borrow().lapses(),
        }
    }

    /// Completes when it changed; `false` once it never will again, and nothing is led any more.
    pub(crate) async fn changed(&mut self) -> bool {
        match self {
            Self::All => std::future::pending().await,
            Self::Leases(held) => held.changed().await.is_ok(),
        }
    }
}

/// Every shard of every topic: what leases for relaying are about.
pub fn places(log: &Log) -> impl Iterator<Item = (Topic, u16)> + use<> {
    let shards = log.shards();
    Topic::ALL.into_iter().flat_map(move |topic| (0..shards).map(move |shard| (topic, shard)))
}
