//! Reading from Kafka: partitions assigned at places of our own, their records checked one by one.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError as Library, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use schemas::binary_mode::{Identity, identity};
use schemas::{Position, Record, Topic};
use tokio::task::{JoinHandle, spawn_blocking, yield_now};
use tokio::time::{Instant, sleep_until};

use super::client::{Apart, Context, blocking, consumer_config, partition, passes, patiently, shard};
use super::error::KafkaError;
use super::peek::{Span, headers, spans};
use super::place::{Place, Verdict, start};
use crate::bus::{BusError, Subscription};

/// What is held for the next calls, beside what the client itself holds: records and their bytes.
const HELD_RECORDS: usize = 4096;
const HELD_BYTES: usize = 8 * 1024 * 1024;
/// What a broker waits for to come together, where there is leisure.
const FETCHED_TOGETHER_BYTES: usize = 64 * 1024;
/// Records taken from the client before others get their turn.
const TURN: usize = 256;
/// What a record costs beside its data.
const OVERHEAD_BYTES: usize = 1024;
/// How often the partitions' ends are looked at: what tells that one was made anew.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(3);
/// The shortest time between two times that the partitions are opened.
const OPEN_EVERY: Duration = Duration::from_millis(200);
/// How often they are opened by themselves before somebody is told.
const REOPENED: u32 = 5;
/// How long the first batch waits for those partitions that are known to have something for it.
const AWAITED: Duration = Duration::from_millis(100);
/// When a shard that cannot go on is tried again.
const STALL: Duration = Duration::from_secs(5);

/// What is asked on the side.
pub(super) type Task<T> = JoinHandle<Result<T, KafkaError>>;
pub(super) type Reader = Arc<Apart<StreamConsumer<Context>>>;

/// A subscription to Kafka.
pub(super) struct Partitions {
    brokers: String,
    topic: Topic,
    name: String,
    /// How long what has come may wait for more.
    leisure: Duration,
    places: Vec<Place>,
    /// Where the next round begins, so that no busy shard starves another.
    turn: usize,
    records: usize,
    bytes: usize,
    reader: Option<Reader>,
    opening: Option<Task<(Reader, Vec<Span>)>>,
    /// Not opened again before that.
    open_after: Instant,
    /// The first batch goes by then.
    awaited_until: Instant,
    /// How often that happened by itself since records were handed on.
    reopened: u32,
    looking: Option<Task<Vec<Span>>>,
    look_at: Instant,
    /// Whether there was a moment since the last look at which all that had come was taken.
    waited: bool,
    /// What went wrong and was not told yet: at most one a shard.
    troubles: VecDeque<KafkaError>,
}

impl Partitions {
    pub(super) fn new(brokers: String, topic: Topic, name: String, after: &[(u16, u64)], leisure: Duration) -> Self {
        let now = Instant::now();
        let mut places: Vec<_> = after.iter().map(|(shard, last)| Place::new(*shard, *last)).collect();
        places.sort_by_key(|place| place.shard);
        Self {
            brokers,
            topic,
            name,
            leisure,
            places,
            turn: 0,
            records: 0,
            bytes: 0,
            reader: None,
            opening: None,
            open_after: now,
            awaited_until: now,
            reopened: 0,
            looking: None,
            look_at: now,
            waited: false,
            troubles: VecDeque::new(),
        }
    }

    /// Begins to read each shard after what was taken of it.
    pub(super) async fn open(&mut self) -> Result<(), KafkaError> {
        sleep_until(self.open_after).await;
        if self.opening.is_none() {
            let (brokers, name, leisure) = (self.brokers.clone(), self.name.clone(), self.leisure);
            let after: Vec<_> = self.places.iter().map(|place| (place.shard, place.last)).collect();
            self.opening = Some(tokio::spawn(patiently(move || {
                let (brokers, name, after) = (brokers.clone(), name.clone(), after.clone());
                blocking(move || assign(&brokers, &name, &after, leisure))
            })));
        }
        let opened = finished(&mut self.opening).await;
        let now = Instant::now();
        self.open_after = now + OPEN_EVERY;
        let (reader, spans) = opened?;
        for (place, span) in self.places.iter_mut().zip(spans) {
            place.open(span);
        }
        self.reader = Some(reader);
        self.awaited_until = now + AWAITED;
        self.look_at = now + LOOK_EVERY;
        self.waited = false;
        Ok(())
    }

    /// Reads no more, until the partitions are opened again.
    fn close(&mut self) {
        self.reader = None;
        self.looking = None;
    }

    fn fail(&mut self, error: KafkaError) {
        metrics::counter!("parlance_bus_read_errors_total", "topic" => self.topic.name()).increment(1);
        if self.troubles.len() <= self.places.len() {
            self.troubles.push_back(error);
        }
    }

    /// Takes what has come, as long as there is room for it.
    async fn pull(&mut self, reader: &Reader) {
        let mut taken = 0;
        while self.reader.is_some() && self.records < HELD_RECORDS && self.bytes < HELD_BYTES {
            let Some(message) = reader.get().recv().now_or_never() else {
                self.waited = true;
                return;
            };
            self.take(message);
            taken += 1;
            if taken % TURN == 0 {
                if self.records > 0 {
                    return;
                }
                yield_now().await;
            }
        }
    }

    fn take(&mut self, message: Result<BorrowedMessage<'_>, Library>) {
        let message = match message {
            Ok(message) => message,
            Err(error) if error.rdkafka_error_code().is_some_and(passes) => {
                tracing::debug!(topic = self.name, %error, "reading {} is disturbed", self.name);
                return;
            }
            Err(error) if self.reopened < REOPENED && error.rdkafka_error_code().is_some_and(is_another) => {
                tracing::info!(topic = self.name, %error, "{} is not what it was: it is opened again", self.name);
                self.reopened += 1;
                return self.close();
            }
            Err(error) => {
                self.close();
                return self.fail(KafkaError::Client("read records", error));
            }
        };
        let place = shard(message.partition())
            .and_then(|shard| self.places.binary_search_by_key(&shard, |place| place.shard).ok());
        let Some(index) = place else { return };
        let place = &mut self.places[index];
        place.next = message.offset() + 1;
        place.awaited = false;
        if place.stalled.is_some() {
            return;
        }
        let Ok(Identity { position, .. }) = identity(headers(&message)) else {
            metrics::counter!("parlance_bus_foreign_records_total", "topic" => self.topic.name()).increment(1);
            if !std::mem::replace(&mut place.foreign_told, true) {
                let (shard, offset) = (place.shard, message.offset());
                tracing::error!(
                    topic = self.name,
                    shard,
                    offset,
                    "{}/{shard} has records that are none of ours, at {offset}: they are passed over",
                    self.name
                );
            }
            return;
        };
        let found = Position { topic: self.topic, shard: place.shard, position };
        match place.judge(position) {
            Verdict::Pass => {}
            Verdict::Reread => self.close(),
            Verdict::Missing => {
                let last = Position { position: place.last, ..found };
                place.stalled = Some(Instant::now() + STALL);
                self.fail(KafkaError::Missing { last, found });
            }
            Verdict::Take => {
                let data = message.payload().unwrap_or_default();
                match Record::from_binary_mode(self.topic, place.shard, headers(&message), data) {
                    Ok(record) => {
                        let bytes = data.len() + OVERHEAD_BYTES;
                        place.last = position;
                        place.held.push_back((Arc::new(record), bytes));
                        self.records += 1;
                        self.bytes += bytes;
                    }
                    Err(source) => {
                        place.stalled = Some(Instant::now() + STALL);
                        self.fail(KafkaError::Unreadable { place: found, source });
                    }
                }
            }
        }
    }

    /// Looks at the partitions' ends when it is time, and again at those of shards that stalled.
    fn tend(&mut self, reader: &Reader) {
        let now = Instant::now();
        if self.places.iter().any(|place| place.stalled.is_some_and(|until| until <= now)) {
            return self.close();
        }
        if self.look_at <= now && self.looking.is_none() {
            self.look_at = now + LOOK_EVERY;
            let (reader, name) = (Arc::clone(reader), self.name.clone());
            self.places.iter_mut().for_each(Place::look);
            let shards: Vec<_> = self.places.iter().map(|place| place.shard).collect();
            self.looking = Some(spawn_blocking(move || spans(reader.get(), &name, &shards)));
        }
    }

    fn looked(&mut self, looked: Result<Vec<Span>, KafkaError>) {
        match looked {
            Ok(spans) => {
                let waited = std::mem::take(&mut self.waited);
                let mut lost = false;
                for (place, span) in self.places.iter_mut().zip(spans) {
                    lost |= place.is_lost(span, waited);
                }
                if lost {
                    tracing::info!(topic = self.name, "{} was emptied or made anew: it is opened again", self.name);
                    self.close();
                }
            }
            Err(error @ KafkaError::NoTopic(_)) => {
                self.close();
                self.fail(error);
            }
            // A broker that is away is waited for.
            Err(error) => tracing::debug!(topic = self.name, %error, "{} could not be looked at", self.name),
        }
    }

    /// When something is to be done, though nothing comes.
    fn wake_at(&self) -> Instant {
        let stalled = self.places.iter().filter_map(|place| place.stalled).min();
        let first = (self.records > 0).then_some(self.awaited_until);
        let look = self.looking.is_none().then_some(self.look_at);
        [stalled, first, look].into_iter().flatten().min().unwrap_or_else(|| Instant::now() + LOOK_EVERY)
    }

    /// Whether the first batch waits for more partitions to join in.
    fn gathers(&self) -> bool {
        self.places.iter().any(|place| place.awaited) && Instant::now() < self.awaited_until
    }

    /// Hands on what is held, shard by shard.
    fn hand_on(&mut self, max: usize) -> Vec<Arc<Record>> {
        let count = self.places.len();
        self.turn = (self.turn + 1) % count.max(1);
        let mut batch = Vec::with_capacity(max.min(self.records));
        for offset in 0..count {
            let place = &mut self.places[(self.turn + offset) % count];
            let taken = place.held.len().min(max - batch.len());
            for (record, bytes) in place.held.drain(..taken) {
                self.bytes -= bytes;
                batch.push(record);
            }
        }
        self.records -= batch.len();
        self.reopened = 0;
        metrics::counter!("parlance_bus_consumed_records_total", "topic" => self.topic.name())
            .increment(batch.len() as u64);
        batch
    }
}

#[async_trait]
impl Subscription for Partitions {
    async fn next(&mut self, max: usize) -> Result<Vec<Arc<Record>>, BusError> {
        let max = max.max(1);
        loop {
            if let Some(reader) = self.reader.clone() {
                self.tend(&reader);
                self.pull(&reader).await;
            }
            let gathers = self.reader.is_some() && self.gathers();
            if self.records > 0 && !gathers {
                return Ok(self.hand_on(max));
            }
            if self.records == 0
                && let Some(trouble) = self.troubles.pop_front()
            {
                return Err(trouble.into());
            }
            let Some(reader) = self.reader.clone() else {
                self.open().await?;
                continue;
            };
            let wake_at = self.wake_at();
            tokio::select! {
                message = reader.get().recv() => self.take(message),
                looked = finished(&mut self.looking) => self.looked(looked),
                () = sleep_until(wake_at) => {}
            }
        }
    }
}

/// A client that reads these shards, each after a position, and how they are now.
fn assign(
    brokers: &str,
    topic: &str,
    after: &[(u16, u64)],
    leisure: Duration,
) -> Result<(Reader, Vec<Span>), KafkaError> {
    let mut config = consumer_config(brokers);
    if !leisure.is_zero() {
        config
            .set("fetch.min.bytes", FETCHED_TOGETHER_BYTES.to_string())
            .set("fetch.wait.max.ms", leisure.as_millis().to_string());
    }
    config.set("queued.max.messages.kbytes", "16384").set("fetch.max.bytes", "8388608");
    let reader = StreamConsumer::from_config_and_context(&config, Context).map_err(KafkaError::Settings)?;
    let shards: Vec<_> = after.iter().map(|(shard, _)| *shard).collect();
    let spans = spans(&reader, topic, &shards)?;
    let mut assigned = TopicPartitionList::with_capacity(after.len());
    for ((shard, last), span) in after.iter().zip(&spans) {
        assigned
            .add_partition_offset(topic, partition(*shard), Offset::Offset(start(*last, *span)))
            .map_err(|error| KafkaError::Client("name a place", error))?;
    }
    reader.assign(&assigned).map_err(|error| KafkaError::Client("read partitions", error))?;
    Ok((Apart::new(reader), spans))
}

/// Whether it says that the partition is not the one that was opened.
pub(super) fn is_another(code: Code) -> bool {
    matches!(code, Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation | Code::UnknownTopicId)
}

/// What a task brings, when there is one. Cancel-safe.
pub(super) async fn finished<T>(task: &mut Option<Task<T>>) -> Result<T, KafkaError> {
    match task {
        Some(running) => {
            let outcome = running.await;
            *task = None;
            outcome?
        }
        None => pending().await,
    }
}
