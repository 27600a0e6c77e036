//! The bus on Kafka: a topic's shards are its partitions, and a record's position is in its headers.
//!
//! What everything here rests on: a position is written only behind its predecessor. So position p stands at offset
//! p - 1 or behind, and no record's position exceeds the highest before it by more than one, whatever was written
//! twice, and by whomever. Readers check that, record by record, and keep their places themselves. A record that is
//! published again on request says how far the partition went by then, so that whoever finds it at the end goes on there.

mod admin;
mod client;
mod ends;
mod error;
mod lines;
mod peek;
mod place;
mod producer;
mod raw;
mod subscription;
mod survey;
mod tails;
#[cfg(test)]
mod tests;
mod topics;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemas::{Record, Topic};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

pub use admin::Difference;
pub use error::KafkaError;
pub use lines::LineTopic;
pub use raw::{RawReader, RawRecord, Start};
pub use survey::{SurveyedPartition, SurveyedTopic, survey};

use self::admin::{CHECK_BOUND, START_BOUND, START_PAUSE};
use self::ends::Ends;
use self::producer::Producers;
use self::subscription::Partitions;
use self::tails::Heads;
use self::topics::Topics;
use super::{Bus, BusError, Subscription, Tail};

/// Which Kafka, and how we use it.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// Where its brokers are: `HOST:PORT`, several separated by commas.
    pub brokers: String,
    /// Shards a topic, which are its partitions.
    pub shards: u16,
    /// Where schemas are found, as records name them.
    pub base: String,
    /// What topics' names begin with; empty, but for tests that share a broker.
    pub prefix: String,
}

/// A bus on Kafka.
pub struct KafkaBus {
    settings: KafkaSettings,
    topics: Topics,
    ends: Ends,
    producers: Producers,
    heads: Heads,
}

impl KafkaBus {
    /// Connects to the brokers, which may take a minute to come.
    ///
    /// # Errors
    /// [`KafkaError::Away`] when none came.
    pub async fn connect(settings: KafkaSettings) -> Result<Self, KafkaError> {
        Self::connect_within(settings, START_BOUND).await
    }

    async fn connect_within(settings: KafkaSettings, bound: Duration) -> Result<Self, KafkaError> {
        describe();
        let brokers = settings.brokers.as_str();
        let bus = Self {
            topics: Topics::new(brokers, settings.prefix.clone(), settings.shards)?,
            ends: Ends::new(settings.shards),
            producers: Producers::new(brokers, settings.base.clone()),
            heads: Heads::new(brokers, settings.shards),
            settings,
        };
        bus.topics.admin().wait(bound).await?;
        Ok(bus)
    }

    /// Makes the topics that are missing, with a partition a shard, and refuses those that are not as they have to be.
    ///
    /// Only the relay does that: at its start, where brokers that are busy or gone again have a minute, and in
    /// [`Bus::tails`] when a topic turns out to be gone.
    pub async fn ensure_topics(&self) -> Result<(), KafkaError> {
        let end = Instant::now() + START_BOUND;
        loop {
            match self.topics.ensure().await {
                Err(error) if !error.is_a_verdict() && Instant::now() < end => {
                    tracing::warn!(error = &error as &dyn Error, "the topics could not be looked at: {error}");
                    sleep(START_PAUSE).await;
                }
                ensured => return ensured,
            }
        }
    }

    /// Whether the brokers answer, for `/health/ready`; what is wrong if not.
    pub async fn check(&self) -> Result<(), String> {
        match timeout(CHECK_BOUND * 6 / 5, self.topics.admin().ask(CHECK_BOUND)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(format!("no answer from {} in time", self.settings.brokers)),
        }
    }
}

#[async_trait]
impl Bus for KafkaBus {
    async fn publish(&self, records: &[Arc<Record>]) -> Result<(), BusError> {
        let began = Instant::now();
        match self.ends.publish(&self.producers, |topic| self.topics.name(topic), records).await {
            Ok(count) => {
                metrics::counter!("parlance_bus_produced_records_total").increment(count);
                metrics::histogram!("parlance_bus_publish_seconds").record(began.elapsed().as_secs_f64());
                Ok(())
            }
            Err(error) => {
                metrics::counter!("parlance_bus_publish_errors_total").increment(1);
                Err(error.into())
            }
        }
    }

    async fn republish(&self, replay: Uuid, records: &[Arc<Record>]) -> Result<(), BusError> {
        let count = self.ends.republish(&self.producers, |topic| self.topics.name(topic), replay, records).await?;
        metrics::counter!("parlance_bus_replayed_records_total").increment(count);
        Ok(())
    }

    async fn heads(&self, topic: Topic) -> Result<Vec<(u16, u64)>, BusError> {
        Ok(self.heads.of(topic, self.topics.name(topic)).await?)
    }

    async fn tails(&self, topic: Topic, shards: &[u16]) -> Result<Vec<(u16, Tail)>, BusError> {
        Ok(tails::tails(&self.topics, &self.ends, &self.settings.brokers, topic, shards).await?)
    }

    async fn subscribe(&self, topic: Topic, after: &[(u16, u64)]) -> Result<Box<dyn Subscription>, BusError> {
        self.subscribe_at_leisure(topic, after, Duration::ZERO).await
    }

    async fn subscribe_at_leisure(
        &self,
        topic: Topic,
        after: &[(u16, u64)],
        leisure: Duration,
    ) -> Result<Box<dyn Subscription>, BusError> {
        if let Some((shard, _)) = after.iter().find(|(shard, _)| *shard >= self.settings.shards) {
            return Err(KafkaError::NoShard { topic, shard: *shard }.into());
        }
        let brokers = self.settings.brokers.clone();
        let mut partitions = Partitions::new(brokers, topic, self.topics.name(topic), after, leisure);
        partitions.open().await?;
        Ok(Box::new(partitions))
    }
}

fn describe() {
    metrics::describe_counter!("parlance_bus_produced_records_total", "Records published to Kafka.");
    metrics::describe_counter!("parlance_bus_replayed_records_total", "Records published to Kafka again, on request.");
    metrics::describe_histogram!("parlance_bus_publish_seconds", "From a call to the last record's delivery.");
    metrics::describe_counter!("parlance_bus_publish_errors_total", "Calls to publish that failed.");
    metrics::describe_counter!("parlance_bus_producers_ended_total", "Producers given up for a failure.");
    metrics::describe_gauge!("parlance_bus_queue_records", "Records that wait in the producer.");
    metrics::describe_counter!("parlance_bus_consumed_records_total", "Records read from Kafka and handed on.");
    metrics::describe_counter!("parlance_bus_read_errors_total", "Failures to read a topic.");
    metrics::describe_counter!("parlance_bus_foreign_records_total", "Records in our topics that are none of ours.");
    metrics::describe_counter!("parlance_bus_client_errors_total", "Errors that Kafka's clients told of.");
}
