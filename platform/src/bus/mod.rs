//! The bus between the log and its consumers: records in position order, at least once.

#[cfg(test)]
mod contract;
mod in_process;
mod kafka;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemas::{Record, Topic};
use uuid::Uuid;

pub use in_process::{Bounds, InProcessBus};
pub use kafka::{
    Difference, KafkaBus, KafkaError, KafkaSettings, LineTopic, RawReader, RawRecord, Start, SurveyedPartition,
    SurveyedTopic, survey,
};

/// The producer's and the consumers' side of the event topics.
///
/// Only the relay publishes. Every implementation is held to one contract test suite.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Hands records on, those of one shard in position order.
    ///
    /// What was published before is passed over; a gap to it is refused, and with it all that follows.
    async fn publish(&self, records: &[Arc<Record>]) -> Result<(), BusError>;

    /// Publishes records of one shard again, in order, for those outside who asked for them by this request.
    ///
    /// Those that were not published yet are passed over: they will be. Whoever subscribes here is not bothered with what
    /// it has.
    async fn republish(&self, replay: Uuid, records: &[Arc<Record>]) -> Result<(), BusError>;

    /// Every shard of `topic` with the last position published there; 0 is none. In the order of their numbers.
    async fn heads(&self, topic: Topic) -> Result<Vec<(u16, u64)>, BusError>;

    /// How each of these shards ends, which are in this process's charge from now on: where its relay goes on.
    async fn tails(&self, topic: Topic, shards: &[u16]) -> Result<Vec<(u16, Tail)>, BusError>;

    /// Begins to read `topic`, each of the given shards after the given position (0 is the beginning).
    async fn subscribe(&self, topic: Topic, after: &[(u16, u64)]) -> Result<Box<dyn Subscription>, BusError>;

    /// The same, for one who would rather have records together than soon: so long may one be left for others to join it,
    /// where fetching them one by one costs.
    async fn subscribe_at_leisure(
        &self,
        topic: Topic,
        after: &[(u16, u64)],
        _leisure: Duration,
    ) -> Result<Box<dyn Subscription>, BusError> {
        self.subscribe(topic, after).await
    }
}

/// How a shard ends on the bus: the furthest record, though others may have been published again behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing was published yet.
    Empty,
    /// A record like ours.
    Record {
        /// Its position.
        position: u64,
        /// Its event's id, by which it is known to be ours; `None` where nobody else can have written it.
        event_id: Option<Uuid>,
    },
    /// A record that is none of ours.
    Foreign,
}

/// One consumer's reading of a topic.
#[async_trait]
pub trait Subscription: Send {
    /// What comes next, at most `max` records: within a shard by position, without a gap; waits while there is none.
    ///
    /// Cancel-safe: what was not returned comes again.
    async fn next(&mut self, max: usize) -> Result<Vec<Arc<Record>>, BusError>;
}

/// Where records come from that the bus itself no longer holds.
#[async_trait]
pub trait Backfill: Send + Sync + 'static {
    /// The records of one shard after a position, in order, at most `limit`.
    async fn read(&self, topic: Topic, shard: u16, after: u64, limit: usize) -> Result<Vec<Arc<Record>>, BusError>;
}

/// Why the bus could not do it; always worth another try.
#[derive(Debug, thiserror::Error)]
#[error("the bus is not available")]
pub struct BusError(#[source] pub Box<dyn std::error::Error + Send + Sync>);
