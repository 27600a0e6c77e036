//! How fast the bus on Kafka is: records of 500 bytes over 16 shards, published by calls of 1,000 and read back; and how
//! long one record takes from a call to its reader.
//!
//! `cargo run --release -p platform --example kafka_throughput [RECORDS]`, with a broker of its own unless `KAFKA_BROKERS`
//! names one.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use platform::bus::{Bus, KafkaBus, KafkaSettings};
use schemas::{DEFAULT_BASE, Event, Record, Topic, UserProfileChanged};
use testkit::kafka::Broker;
use time::OffsetDateTime;
use uuid::Uuid;

const SHARDS: u16 = 16;
/// Records of one call, of which as many run at once.
const CALL: u64 = 1000;
const CALLS: u16 = 4;
/// Records whose time is taken one by one.
const SINGLES: u64 = 1000;

fn record(shard: u16, position: u64) -> Arc<Record> {
    let at = OffsetDateTime::UNIX_EPOCH;
    let user_id = Uuid::from_u64_pair(u64::from(shard), position);
    let display_name = Some("x".repeat(360));
    Arc::new(Record {
        topic: Topic::Users,
        shard,
        position,
        event_id: user_id,
        key: user_id,
        at,
        correlation: None,
        causation: None,
        trace: None,
        session: None,
        event: Event::UserProfileChanged(UserProfileChanged { user_id, display_name, avatar_file_id: None, at }),
    })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let total: u64 = std::env::args().nth(1).map_or(Ok(400_000), |text| text.parse())?;
    let own = match std::env::var("KAFKA_BROKERS") {
        Ok(_) => None,
        Err(_) => Some(Broker::start().await?),
    };
    let brokers =
        own.as_ref().map_or_else(|| std::env::var("KAFKA_BROKERS"), |broker| Ok(broker.address().to_owned()))?;
    let prefix = format!("throughput-{}.", Uuid::new_v4().simple());
    let settings = KafkaSettings { brokers, shards: SHARDS, base: DEFAULT_BASE.to_owned(), prefix };
    let bus = Arc::new(KafkaBus::connect(settings).await?);
    bus.ensure_topics().await?;
    let shards: Vec<u16> = (0..SHARDS).collect();
    bus.tails(Topic::Users, &shards).await?;
    println!("data of {} bytes", record(0, 1).event.to_json()?.len());

    // Each call has its part of the shards, as the relay's have.
    let each = total / u64::from(SHARDS);
    let began = Instant::now();
    let mut calls = Vec::new();
    for part in 0..CALLS {
        let bus = Arc::clone(&bus);
        calls.push(tokio::spawn(async move {
            let mine = u64::from(SHARDS / CALLS);
            let step = CALL / mine;
            let mut position = 0;
            while position < each {
                let next = (position + step).min(each);
                let shards = (0..SHARDS).filter(|shard| shard % CALLS == part);
                let records: Vec<_> =
                    shards.flat_map(|shard| (position + 1..=next).map(move |p| record(shard, p))).collect();
                bus.publish(&records).await?;
                position = next;
            }
            anyhow::Ok(())
        }));
    }
    for call in calls {
        call.await??;
    }
    report("published", each * u64::from(SHARDS), began);

    let began = Instant::now();
    let after: Vec<_> = shards.iter().map(|shard| (*shard, 0)).collect();
    let mut reader = bus.subscribe(Topic::Users, &after).await?;
    let mut count = 0;
    while count < each * u64::from(SHARDS) {
        count += reader.next(1000).await?.len() as u64;
    }
    report("read", count, began);

    let mut times = Vec::new();
    for position in each + 1..=each + SINGLES {
        let began = Instant::now();
        let record = [record(3, position)];
        let (published, read) = tokio::join!(bus.publish(&record), reader.next(1));
        published?;
        read?.first().context("one record")?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    println!("one by one: p50 {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn report(what: &str, count: u64, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    println!("{what} {count} records in {seconds:.2} s: {:.0}/s", count as f64 / seconds);
}
