//! What every bus must do: one suite of tests, held against each implementation.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::{Event, Position, Record, Topic, UserChanged};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Backfill, Bus, BusError, Subscription, Tail};

/// Shards a topic, of every bus under test.
pub(crate) const SHARDS: u16 = 4;

/// A bus under test, new and empty, with whatever it stands on. It may forget early, so as to need its backfill.
#[async_trait]
pub(crate) trait Harness: Send + Sync + Sized {
    async fn new() -> Self;
    fn bus(&self) -> &dyn Bus;
    /// Publishes as the relay does: what was committed before.
    async fn publish(&self, records: &[Arc<Record>]) -> Result<(), BusError>;
}

/// Makes a test of each promise.
macro_rules! suite {
    ($harness:ty) => {
        $crate::bus::contract::suite!($harness:
            in_order_without_a_gap,
            what_was_published_before_is_passed_over,
            a_gap_is_refused,
            many_subscribers_get_all,
            who_is_at_leisure_gets_all_too,
            a_late_subscriber_reads_from_the_beginning,
            a_slow_subscriber_misses_nothing_and_comes_back,
            a_busy_shard_starves_no_other,
            next_can_be_cancelled,
            batches_are_bounded,
            heads_are_known,
            shards_that_there_are_not
        );
    };
    ($harness:ty: $($case:ident),+) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::bus::contract::$case::<$harness>().await;
            }
        )+
    };
}
pub(crate) use suite;

/// The log that stands behind a bus.
#[derive(Default)]
pub(crate) struct MemoryLog(Mutex<HashMap<(Topic, u16), ByPosition>>);

type ByPosition = BTreeMap<u64, Arc<Record>>;

impl MemoryLog {
    pub(crate) fn append(&self, records: &[Arc<Record>]) {
        let mut log = self.0.lock();
        for record in records {
            log.entry((record.topic, record.shard)).or_default().insert(record.position, Arc::clone(record));
        }
    }
}

#[async_trait]
impl Backfill for MemoryLog {
    async fn read(&self, topic: Topic, shard: u16, after: u64, limit: usize) -> Result<Vec<Arc<Record>>, BusError> {
        tokio::task::yield_now().await;
        let log = self.0.lock();
        let records = log.get(&(topic, shard)).into_iter().flat_map(|records| records.range(after + 1..));
        Ok(records.take(limit).map(|(_, record)| Arc::clone(record)).collect())
    }
}

/// The heads of a bus that nothing was published on.
pub(crate) fn empty() -> Vec<Position> {
    Topic::ALL
        .into_iter()
        .flat_map(|topic| (0..SHARDS).map(move |shard| Position { topic, shard, position: 0 }))
        .collect()
}

pub(crate) fn records(topic: Topic, shard: u16, positions: RangeInclusive<u64>) -> Vec<Arc<Record>> {
    positions.map(|position| Arc::new(record(topic, shard, position))).collect()
}

fn record(topic: Topic, shard: u16, position: u64) -> Record {
    let event_id = Uuid::from_u64_pair(u64::from(shard) + 1, position);
    let at = OffsetDateTime::UNIX_EPOCH;
    Record {
        topic,
        shard,
        position,
        event_id,
        key: Uuid::from_u128(u128::from(shard)),
        at,
        correlation: None,
        causation: None,
        trace: None,
        session: None,
        event: Event::UserPasswordChanged(UserChanged { user_id: event_id, at }),
    }
}

pub(crate) fn positions(records: &[Arc<Record>]) -> Vec<(u16, u64)> {
    records.iter().map(|record| (record.shard, record.position)).collect()
}

/// Reads until `count` records are there, `max` at a time.
pub(crate) async fn read(subscription: &mut dyn Subscription, count: usize, max: usize) -> Vec<Arc<Record>> {
    let mut all = Vec::new();
    while all.len() < count {
        let batch = tokio::time::timeout(Duration::from_secs(10), subscription.next(max)).await;
        all.extend(batch.expect("records within 10 s").unwrap());
    }
    all
}

/// Within each shard every position, once, in order.
fn assert_dense(records: &[Arc<Record>], shards: &[(u16, RangeInclusive<u64>)]) {
    for (shard, expected) in shards {
        let got: Vec<u64> = records.iter().filter(|record| record.shard == *shard).map(|r| r.position).collect();
        assert_eq!(got, expected.clone().collect::<Vec<_>>(), "shard {shard}");
    }
}

async fn subscribe(harness: &impl Harness, after: &[(u16, u64)]) -> Box<dyn Subscription> {
    harness.bus().subscribe(Topic::Users, after).await.unwrap()
}

pub(crate) async fn in_order_without_a_gap<H: Harness>() {
    let harness = H::new().await;
    let mut reader = subscribe(&harness, &[(0, 0), (1, 0), (2, 0)]).await;
    for round in 0..10_u64 {
        let mut batch = records(Topic::Users, 0, round * 3 + 1..=round * 3 + 3);
        batch.extend(records(Topic::Conversations, 0, round + 1..=round + 1));
        batch.extend(records(Topic::Users, 2, round + 1..=round + 1));
        harness.publish(&batch).await.unwrap();
    }
    let got = read(&mut *reader, 40, 7).await;
    assert_eq!(got.len(), 40);
    assert!(got.iter().all(|record| record.topic == Topic::Users));
    assert_dense(&got, &[(0, 1..=30), (2, 1..=10)]);
}

pub(crate) async fn what_was_published_before_is_passed_over<H: Harness>() {
    let harness = H::new().await;
    let mut reader = subscribe(&harness, &[(0, 0)]).await;
    harness.publish(&records(Topic::Users, 0, 1..=4)).await.unwrap();
    harness.publish(&records(Topic::Users, 0, 2..=6)).await.unwrap();
    assert_dense(&read(&mut *reader, 6, 100).await, &[(0, 1..=6)]);
}

pub(crate) async fn a_gap_is_refused<H: Harness>() {
    let harness = H::new().await;
    let mut reader = subscribe(&harness, &[(0, 0)]).await;
    harness.bus().publish(&records(Topic::Users, 0, 1..=1)).await.unwrap();
    assert!(harness.bus().publish(&records(Topic::Users, 0, 3..=3)).await.is_err());
    harness.bus().publish(&records(Topic::Users, 0, 2..=2)).await.unwrap();
    assert_dense(&read(&mut *reader, 2, 100).await, &[(0, 1..=2)]);
}

pub(crate) async fn many_subscribers_get_all<H: Harness>() {
    let harness = H::new().await;
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push(subscribe(&harness, &[(3, 0)]).await);
    }
    let waiting: Vec<_> =
        readers.into_iter().map(|mut reader| tokio::spawn(async move { read(&mut *reader, 50, 9).await })).collect();
    for position in 1..=50 {
        harness.publish(&records(Topic::Users, 3, position..=position)).await.unwrap();
        tokio::task::yield_now().await;
    }
    for reader in waiting {
        assert_dense(&reader.await.unwrap(), &[(3, 1..=50)]);
    }
}

pub(crate) async fn who_is_at_leisure_gets_all_too<H: Harness>() {
    let harness = H::new().await;
    harness.publish(&records(Topic::Users, 0, 1..=500)).await.unwrap();
    let leisure = Duration::from_millis(100);
    let mut reader = harness.bus().subscribe_at_leisure(Topic::Users, &[(0, 0), (1, 0)], leisure).await.unwrap();
    assert_dense(&read(&mut *reader, 500, 100).await, &[(0, 1..=500)]);
    // So little that nobody would wait for it to become more for ever.
    for shard in [0, 1] {
        let first = if shard == 0 { 501 } else { 1 };
        harness.publish(&records(Topic::Users, shard, first..=first)).await.unwrap();
        assert_dense(&read(&mut *reader, 1, 100).await, &[(shard, first..=first)]);
    }
}

pub(crate) async fn a_late_subscriber_reads_from_the_beginning<H: Harness>() {
    let harness = H::new().await;
    harness.publish(&records(Topic::Users, 0, 1..=500)).await.unwrap();
    let mut whole = subscribe(&harness, &[(0, 0)]).await;
    let mut end = subscribe(&harness, &[(0, 498)]).await;
    assert_dense(&read(&mut *end, 2, 100).await, &[(0, 499..=500)]);
    assert_dense(&read(&mut *whole, 500, 33).await, &[(0, 1..=500)]);
}

pub(crate) async fn a_slow_subscriber_misses_nothing_and_comes_back<H: Harness>() {
    let harness = H::new().await;
    let mut slow = subscribe(&harness, &[(0, 0), (1, 0)]).await;
    let mut got = Vec::new();
    for round in 0..40_u64 {
        harness.publish(&records(Topic::Users, 0, round * 20 + 1..=round * 20 + 20)).await.unwrap();
        harness.publish(&records(Topic::Users, 1, round + 1..=round + 1)).await.unwrap();
        got.extend(slow.next(5).await.unwrap());
    }
    let missing = 840 - got.len();
    got.extend(read(&mut *slow, missing, 50).await);
    // And back at the head, what is new comes as it is published.
    harness.publish(&records(Topic::Users, 1, 41..=41)).await.unwrap();
    got.extend(read(&mut *slow, 1, 50).await);
    assert_dense(&got, &[(0, 1..=800), (1, 1..=41)]);
}

pub(crate) async fn a_busy_shard_starves_no_other<H: Harness>() {
    let harness = H::new().await;
    harness.publish(&records(Topic::Users, 0, 1..=400)).await.unwrap();
    harness.publish(&records(Topic::Users, 1, 1..=40)).await.unwrap();
    harness.publish(&records(Topic::Users, 2, 1..=1)).await.unwrap();
    let mut reader = subscribe(&harness, &[(0, 0), (1, 0), (2, 0)]).await;
    let mut got = Vec::new();
    for _ in 0..8 {
        got.extend(reader.next(10).await.unwrap());
    }
    for shard in 0..3 {
        assert!(got.iter().any(|record| record.shard == shard), "shard {shard} waits behind {}", got.len());
    }
}

pub(crate) async fn next_can_be_cancelled<H: Harness>() {
    let harness = H::new().await;
    harness.publish(&records(Topic::Users, 0, 1..=300)).await.unwrap();
    let mut reader = subscribe(&harness, &[(0, 0)]).await;
    let mut got = Vec::new();
    while got.len() < 300 {
        // Polled once and dropped, wherever it has got to by then.
        let once = {
            let mut next = pin!(reader.next(7));
            poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await
        };
        match once {
            Poll::Ready(batch) => got.extend(batch.unwrap()),
            Poll::Pending => got.extend(reader.next(7).await.unwrap()),
        }
    }
    assert_dense(&got, &[(0, 1..=300)]);
    // While it waits for more, too.
    assert!(tokio::time::timeout(Duration::from_millis(5), reader.next(7)).await.is_err());
    harness.publish(&records(Topic::Users, 0, 301..=301)).await.unwrap();
    assert_dense(&read(&mut *reader, 1, 7).await, &[(0, 301..=301)]);
}

pub(crate) async fn batches_are_bounded<H: Harness>() {
    let harness = H::new().await;
    harness.publish(&records(Topic::Users, 0, 1..=100)).await.unwrap();
    harness.publish(&records(Topic::Users, 1, 1..=100)).await.unwrap();
    let mut reader = subscribe(&harness, &[(0, 0), (1, 0)]).await;
    let mut count = 0;
    while count < 200 {
        let batch = reader.next(6).await.unwrap();
        assert!((1..=6).contains(&batch.len()), "{}", batch.len());
        count += batch.len();
    }
    assert_eq!(count, 200);
}

pub(crate) async fn heads_are_known<H: Harness>() {
    let harness = H::new().await;
    assert_eq!(harness.bus().heads(Topic::Users).await.unwrap(), [(0, 0), (1, 0), (2, 0), (3, 0)]);
    harness.publish(&records(Topic::Users, 2, 1..=9)).await.unwrap();
    assert_eq!(harness.bus().heads(Topic::Users).await.unwrap(), [(0, 0), (1, 0), (2, 9), (3, 0)]);
    assert_eq!(harness.bus().heads(Topic::Conversations).await.unwrap()[2], (2, 0));
    let tails = harness.bus().tails(Topic::Users, &[1, 2]).await.unwrap();
    let ours = |id: Option<Uuid>| id.is_none_or(|id| id == Uuid::from_u64_pair(3, 9));
    assert!(matches!(tails[..], [(1, Tail::Empty), (2, Tail::Record { position: 9, event_id })] if ours(event_id)));
}

pub(crate) async fn shards_that_there_are_not<H: Harness>() {
    let harness = H::new().await;
    assert!(harness.bus().subscribe(Topic::Users, &[(SHARDS, 0)]).await.is_err());
    assert!(harness.bus().publish(&records(Topic::Users, SHARDS, 1..=1)).await.is_err());
}
