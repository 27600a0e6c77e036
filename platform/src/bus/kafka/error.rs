//! What goes wrong between us and Kafka.

use std::time::Duration;

use rdkafka::error::{KafkaError as Library, RDKafkaErrorCode as Code};
use schemas::binary_mode::RecordError;
use schemas::{Position, Topic};

use crate::bus::BusError;

/// Why Kafka could not do it.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// What was configured is not understood.
    #[error("Kafka's client does not take these settings")]
    Settings(#[source] Library),
    /// No broker answered at the start.
    #[error("Kafka does not answer at {brokers}")]
    Away {
        /// The brokers that were asked.
        brokers: String,
        /// The last answer.
        #[source]
        source: Box<Self>,
    },
    /// A topic has another count of partitions than there are shards.
    #[error("the topic {topic} has {found} partitions, not {wanted}, one a shard")]
    Partitions {
        /// The topic.
        topic: String,
        /// What it has.
        found: usize,
        /// The shards.
        wanted: usize,
    },
    /// A topic would lose records.
    #[error("the topic {topic} has {setting}={found}, not {wanted}")]
    Setting {
        /// The topic.
        topic: String,
        /// The setting's name.
        setting: &'static str,
        /// Its value.
        found: String,
        /// The value that it has to have.
        wanted: &'static str,
    },
    /// There is no such topic (any more).
    #[error("there is no topic {0}")]
    NoTopic(String),
    /// There is no such shard.
    #[error("the topic {topic:?} has no shard {shard}")]
    NoShard {
        /// The topic.
        topic: Topic,
        /// The shard.
        shard: u16,
    },
    /// Records were left out.
    #[error("{found} does not follow {last}")]
    Gap {
        /// The last one published.
        last: Position,
        /// The one that was to be published.
        found: Position,
    },
    /// The shard's end has to be looked up before anything is published to it.
    #[error("it is not known how shard {shard} of {topic:?} ends")]
    EndUnknown {
        /// The topic.
        topic: Topic,
        /// The shard.
        shard: u16,
    },
    /// A record did not land behind its predecessor: somebody else writes, or the topic was made anew.
    #[error("{place} went to offset {offset}, where {expected} was next")]
    Moved {
        /// The record.
        place: Position,
        /// Where it was expected.
        expected: i64,
        /// Where it is.
        offset: i64,
    },
    /// What follows is not where it has to be.
    #[error("{found} comes after {last}: what lies between is not there")]
    Missing {
        /// The last one read.
        last: Position,
        /// What comes after it.
        found: Position,
    },
    /// A record of ours that this version cannot read.
    #[error("the record at {place} cannot be read")]
    Unreadable {
        /// The record.
        place: Position,
        /// Why.
        #[source]
        source: RecordError,
    },
    /// A record that cannot be written.
    #[error("the record at {0} cannot be written")]
    Unwritable(Position, #[source] serde_json::Error),
    /// No answer came in time.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// The client says so.
    #[error("cannot {0}")]
    Client(&'static str, #[source] Library),
    /// A broker says so.
    #[error("cannot {0}")]
    Broker(&'static str, #[source] Code),
    /// A thread that asked on our behalf is gone.
    #[error("the thread that asked Kafka ended")]
    Thread(#[from] tokio::task::JoinError),
}

impl KafkaError {
    /// Whether it says of Kafka, or of what we were told of it, that it is not as it has to be: waiting changes nothing.
    pub(super) fn is_a_verdict(&self) -> bool {
        matches!(self, Self::Settings(_) | Self::Partitions { .. } | Self::Setting { .. })
    }
}

impl From<KafkaError> for BusError {
    fn from(error: KafkaError) -> Self {
        Self(Box::new(error))
    }
}
