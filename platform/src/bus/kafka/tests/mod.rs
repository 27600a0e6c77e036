//! The bus held against a real Kafka.

use std::sync::Arc;

use async_trait::async_trait;
use schemas::{DEFAULT_BASE, Record, Topic};
use testkit::kafka::Broker;
use uuid::Uuid;

use super::{KafkaBus, KafkaSettings};
use crate::bus::contract::{self, Harness, SHARDS};
use crate::bus::{Bus, BusError};

/// Settings of one test's own topics.
fn settings(broker: &Broker) -> KafkaSettings {
    KafkaSettings {
        brokers: broker.address().to_owned(),
        shards: SHARDS,
        base: DEFAULT_BASE.to_owned(),
        prefix: format!("{}.", Uuid::new_v4().simple()),
    }
}

fn all_shards() -> Vec<u16> {
    (0..SHARDS).collect()
}

/// A bus with its topics made, and its ends looked up, as the relay does.
async fn ready(settings: KafkaSettings) -> KafkaBus {
    let bus = KafkaBus::connect(settings).await.unwrap();
    bus.ensure_topics().await.unwrap();
    for topic in Topic::ALL {
        bus.tails(topic, &all_shards()).await.unwrap();
    }
    bus
}

struct OnKafka(KafkaBus);

#[async_trait]
impl Harness for OnKafka {
    async fn new() -> Self {
        Self(ready(settings(Broker::shared().await)).await)
    }

    fn bus(&self) -> &dyn Bus {
        &self.0
    }

    async fn publish(&self, records: &[Arc<Record>]) -> Result<(), BusError> {
        self.0.publish(records).await
    }
}

contract::suite!(OnKafka);
