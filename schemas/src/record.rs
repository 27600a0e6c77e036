//! The envelope of an event on the bus.

use std::borrow::Cow;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Event, Position, Topic};

/// One event on the bus: what becomes one record in Kafka.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The topic.
    pub topic: Topic,
    /// The shard, which is the partition.
    pub shard: u16,
    /// The position in the shard: dense from 1, in commit order.
    pub position: u64,
    /// The event's id, the same however often it is published.
    pub event_id: Uuid,
    /// The ordering key.
    pub key: Uuid,
    /// When it happened.
    pub at: OffsetDateTime,
    /// The command's own correlation id, where it brought one.
    pub correlation: Option<Box<str>>,
    /// The event that caused it, where one did.
    pub causation: Option<Uuid>,
    /// The command's W3C trace context, where it brought one.
    pub trace: Option<Box<str>>,
    /// The session that the command came by, where it is known.
    pub session: Option<Uuid>,
    /// What happened.
    pub event: Event,
}

impl Record {
    /// The record's place in the log.
    pub fn place(&self) -> Position {
        Position { topic: self.topic, shard: self.shard, position: self.position }
    }

    /// What all that one command caused has in common: `ce_correlationid`.
    pub fn correlation_id(&self) -> Cow<'_, str> {
        match &self.correlation {
            Some(id) => Cow::Borrowed(id),
            None => Cow::Owned(self.event_id.to_string()),
        }
    }

    /// The id of the event that caused it, else the correlation id: `ce_causationid`.
    pub fn causation_id(&self) -> Cow<'_, str> {
        match self.causation {
            Some(id) => Cow::Owned(id.to_string()),
            None => self.correlation_id(),
        }
    }

    /// The command's trace context; one derived from the event's id, and not sampled, where it brought none.
    pub fn traceparent(&self) -> Cow<'_, str> {
        if let Some(trace) = &self.trace {
            return Cow::Borrowed(trace);
        }
        let trace = self.event_id.as_u128();
        Cow::Owned(format!("00-{trace:032x}-{:016x}-00", trace & u128::from(u64::MAX)))
    }
}
