//! The bus held against a real Kafka.

mod faults;
mod lines;
mod raw;
mod replays;
mod topics;
mod writers;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use schemas::{DEFAULT_BASE, Record, Topic};
use testkit::eventually_some;
use testkit::kafka::Broker;
use tokio::time::timeout;
use uuid::Uuid;

use super::client::{config, partition};
use super::{KafkaBus, KafkaError, KafkaSettings};
use crate::bus::contract::{self, Harness, SHARDS, records};
use crate::bus::{Bus, BusError, Subscription, Tail};

/// How long anything may take on a busy machine.
const BOUND: Duration = Duration::from_mins(2);
const TOPIC: Topic = Topic::Users;

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

/// Publishes up to a position as the relay does: behind the tails, which are looked up again after a failure.
async fn fill(bus: &KafkaBus, shards: &[u16], to: u64, step: u64) {
    loop {
        let tails = eventually_some("the tails", BOUND, async || bus.tails(TOPIC, shards).await.ok()).await;
        let mut ends: BTreeMap<u16, u64> = BTreeMap::new();
        for (shard, tail) in tails {
            let position = match tail {
                Tail::Empty => 0,
                Tail::Record { position, .. } => position,
                Tail::Foreign => panic!("somebody else's record at the end of {shard}"),
            };
            ends.insert(shard, position);
        }
        loop {
            let next = |end: u64| end + 1..=(end + step).min(to);
            let batch: Vec<_> = ends.iter().flat_map(|(shard, end)| records(TOPIC, *shard, next(*end))).collect();
            if batch.is_empty() {
                return;
            }
            if bus.publish(&batch).await.is_err() {
                break;
            }
            for end in ends.values_mut() {
                *end = (*end + step).min(to).max(*end);
            }
        }
    }
}

/// Reads shards from the beginning to a position, and again from where it got to after a failure; `read` counts.
async fn follow(bus: &KafkaBus, shards: &[u16], to: u64, read: &AtomicU64) {
    let mut got: BTreeMap<u16, u64> = shards.iter().map(|shard| (*shard, 0)).collect();
    while got.values().any(|last| *last < to) {
        let after: Vec<_> = got.iter().map(|(shard, last)| (*shard, *last)).collect();
        let mut reader = eventually_some("the topic", BOUND, async || bus.subscribe(TOPIC, &after).await.ok()).await;
        while got.values().any(|last| *last < to) {
            let next = timeout(BOUND, reader.next(100)).await.expect("records, or an error");
            let Ok(batch) = next else { break };
            for record in batch {
                let last = got.get_mut(&record.shard).expect("a shard that was asked for");
                assert_eq!(record.position, *last + 1, "shard {}", record.shard);
                *last = record.position;
                read.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// That these shards hold every position up to this, for who reads from the beginning.
async fn assert_filled(bus: &KafkaBus, shards: &[u16], to: u64) {
    let after: Vec<_> = shards.iter().map(|shard| (*shard, 0)).collect();
    let mut reader = bus.subscribe(TOPIC, &after).await.unwrap();
    let mut got: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    while got.values().map(Vec::len).sum::<usize>() < shards.len() * usize::try_from(to).unwrap() {
        for record in timeout(BOUND, reader.next(1000)).await.expect("records").unwrap() {
            got.entry(record.shard).or_default().push(record.position);
        }
    }
    for positions in got.values() {
        assert_eq!(*positions, (1..=to).collect::<Vec<_>>());
    }
}

/// Somebody who writes what he likes.
struct Stranger {
    producer: FutureProducer,
    topic: String,
}

impl Stranger {
    fn new(settings: &KafkaSettings) -> Self {
        let producer = config(&settings.brokers).create().unwrap();
        Self { producer, topic: format!("{}{}", settings.prefix, TOPIC.name()) }
    }

    async fn junk(&self, shard: u16) {
        let junk = FutureRecord::<str, str>::to(&self.topic).partition(partition(shard)).payload("junk");
        self.producer.send(junk, BOUND).await.unwrap();
    }

    /// Records like ours, with another type where one is given.
    async fn write(&self, shard: u16, positions: RangeInclusive<u64>, kind: Option<&str>) {
        for record in records(TOPIC, shard, positions) {
            let binary = record.to_binary_mode(DEFAULT_BASE).unwrap();
            let headers = binary.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                let value = kind.filter(|_| *key == "ce_type").unwrap_or(value);
                headers.insert(Header { key, value: Some(value) })
            });
            let message = FutureRecord::to(&self.topic)
                .partition(partition(shard))
                .key(&binary.key)
                .payload(&binary.data)
                .headers(headers);
            self.producer.send(message, BOUND).await.unwrap();
        }
    }
}

fn admin(settings: &KafkaSettings) -> AdminClient<DefaultClientContext> {
    config(&settings.brokers).create().unwrap()
}

async fn delete_topic(settings: &KafkaSettings) {
    let topic = format!("{}{}", settings.prefix, TOPIC.name());
    admin(settings).delete_topics(&[&topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
}

/// What Kafka said, behind the bus's own words.
fn cause<T>(outcome: Result<T, BusError>) -> KafkaError {
    let error = outcome.err().expect("a failure");
    *error.0.downcast::<KafkaError>().expect("one of Kafka's")
}

async fn read(reader: &mut dyn Subscription, count: usize) -> Vec<(u16, u64)> {
    contract::positions(&contract::read(reader, count, count).await)
}
