//! An event as it stands in the log.

use std::borrow::Cow;
use std::sync::Arc;

use domain::kernel::{LogTopic, Stored};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::chain::Hash;
use crate::command::Context;
use crate::kind;
use crate::upcast::Upcasters;

/// An event of the log, private: the relay translates it before it leaves the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// The topic of its shard.
    pub topic: LogTopic,
    /// The shard of its key.
    pub shard: u16,
    /// Dense within the shard, from 1, in commit order.
    pub position: u64,
    /// The ordering key: the conversation, or the user.
    pub key: Uuid,
    /// Dense within the key, from 1; of numbered events alone.
    pub seq: Option<u64>,
    /// The code of its aggregate.
    pub aggregate_type: i16,
    /// The aggregate.
    pub aggregate_id: Uuid,
    /// Dense within the aggregate, from 1.
    pub sequence: u32,
    /// UUID version 7.
    pub event_id: Uuid,
    /// The type's name.
    pub event_type: Cow<'static, str>,
    /// The version of the type's JSON.
    pub event_version: i16,
    /// When it was decided; milliseconds.
    #[serde(with = "time::serde::timestamp::microseconds")]
    pub at: OffsetDateTime,
    /// The event's JSON.
    pub payload: Box<str>,
    /// Where its command came from.
    pub metadata: Option<Arc<Context>>,
    /// SHA-256 of the predecessor's hash and this row.
    pub hash: Hash,
}

impl StoredEvent {
    /// The event of `A` that this row holds.
    ///
    /// # Errors
    /// JSON that does not fit the type.
    pub fn decode<A: Stored>(&self, upcasters: &Upcasters) -> serde_json::Result<A::Event> {
        kind::decode::<A>(&self.event_type, self.event_version, &self.payload, upcasters)
    }
}

/// A stored event that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "event {sequence} of aggregate {aggregate_id} (type {aggregate_type}) cannot be read as {event_type:?} version {event_version}"
)]
pub struct UnreadableEvent {
    /// The code of the aggregate.
    pub aggregate_type: i16,
    /// The aggregate.
    pub aggregate_id: Uuid,
    /// The event within it.
    pub sequence: u32,
    /// The type's name.
    pub event_type: String,
    /// The version of the type's JSON.
    pub event_version: i16,
    /// What the decoder said.
    #[source]
    pub source: serde_json::Error,
}
