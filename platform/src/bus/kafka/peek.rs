//! Looks at partitions: where they begin and end, and what stands at a place.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as Library, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use schemas::binary_mode::{Identity, identity};
use time::OffsetDateTime;

use super::client::{Context, LOOK_BOUND, consumer_config, partition, passes, shard};
use super::error::KafkaError;

/// Where a partition's records begin, and where the next one will stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) shard: u16,
    pub(super) low: i64,
    pub(super) high: i64,
}

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) offset: i64,
    /// `None` for a record that is none of ours.
    pub(super) identity: Option<Identity>,
}

/// A client that only looks. Its calls block.
pub(super) struct Peek {
    consumer: BaseConsumer<Context>,
}

impl Peek {
    pub(super) fn new(brokers: &str) -> Result<Self, KafkaError> {
        let mut config = consumer_config(brokers);
        // A place where nothing of anybody's can be read, as behind a transaction, is told by the partition's end.
        config.set("enable.partition.eof", "true").set("queued.max.messages.kbytes", "8192");
        let consumer = BaseConsumer::from_config_and_context(&config, Context).map_err(KafkaError::Settings)?;
        Ok(Self { consumer })
    }

    pub(super) fn spans(&self, topic: &str, shards: &[u16]) -> Result<Vec<Span>, KafkaError> {
        spans(&self.consumer, topic, shards)
    }

    /// What stands at these offsets, which are within the partitions.
    pub(super) fn at(&self, topic: &str, places: &[(u16, i64)]) -> Result<HashMap<u16, Found>, KafkaError> {
        if places.is_empty() {
            return Ok(HashMap::new());
        }
        let mut wanted = TopicPartitionList::with_capacity(places.len());
        for (shard, offset) in places {
            wanted
                .add_partition_offset(topic, partition(*shard), Offset::Offset(*offset))
                .map_err(|error| KafkaError::Client("name a place", error))?;
        }
        // What was said while nobody listened.
        while self.consumer.poll(Duration::ZERO).is_some() {}
        self.consumer.assign(&wanted).map_err(|error| KafkaError::Client("read records", error))?;
        let found = self.read(places);
        self.consumer.unassign().map_err(|error| KafkaError::Client("end a read", error))?;
        found
    }

    fn read(&self, places: &[(u16, i64)]) -> Result<HashMap<u16, Found>, KafkaError> {
        let mut found = HashMap::with_capacity(places.len());
        let end = Instant::now() + LOOK_BOUND;
        while found.len() < places.len() {
            let left = end.saturating_duration_since(Instant::now());
            match self.consumer.poll(left) {
                None if left.is_zero() => return Err(KafkaError::Late(LOOK_BOUND)),
                None => {}
                Some(Ok(message)) => {
                    if let Some(shard) = shard(message.partition()) {
                        let identity = identity(headers(&message)).ok();
                        found.entry(shard).or_insert(Found { offset: message.offset(), identity });
                    }
                }
                Some(Err(Library::PartitionEOF(number))) => {
                    let place = places.iter().find(|(shard, _)| partition(*shard) == number);
                    if let Some((shard, offset)) = place {
                        found.entry(*shard).or_insert(Found { offset: *offset, identity: None });
                    }
                }
                Some(Err(error)) if error.rdkafka_error_code().is_some_and(passes) => {}
                Some(Err(error)) => return Err(KafkaError::Client("read records", error)),
            }
        }
        Ok(found)
    }
}

/// Where these partitions begin and end, as their leaders have it now.
pub(super) fn spans<C: Consumer<Context>>(consumer: &C, topic: &str, shards: &[u16]) -> Result<Vec<Span>, KafkaError> {
    // A topic that is not there would be waited for below.
    let metadata = consumer
        .fetch_metadata(Some(topic), LOOK_BOUND)
        .map_err(|error| KafkaError::Client("ask for a topic", error))?;
    let count = metadata.topics().first().map_or(0, |found| found.partitions().len());
    if count == 0 {
        return Err(KafkaError::NoTopic(topic.to_owned()));
    }
    if shards.is_empty() {
        return Ok(Vec::new());
    }
    let lows = offsets(consumer, topic, shards, Offset::Beginning)?;
    let highs = offsets(consumer, topic, shards, Offset::End)?;
    let span = |shard: &u16| Some(Span { shard: *shard, low: *lows.get(shard)?, high: *highs.get(shard)? });
    shards.iter().map(|shard| span(shard).ok_or_else(|| KafkaError::NoTopic(topic.to_owned()))).collect()
}

fn offsets<C: Consumer<Context>>(
    consumer: &C,
    topic: &str,
    shards: &[u16],
    which: Offset,
) -> Result<HashMap<u16, i64>, KafkaError> {
    let mut asked = TopicPartitionList::with_capacity(shards.len());
    for shard in shards {
        // The protocol takes the two ends where it takes a time.
        asked
            .add_partition_offset(topic, partition(*shard), which)
            .map_err(|error| KafkaError::Client("name a place", error))?;
    }
    let answer = consumer.offsets_for_times(asked, LOOK_BOUND).map_err(|error| gone(topic, error))?;
    let mut offsets = HashMap::with_capacity(shards.len());
    for element in answer.elements() {
        element.error().map_err(|error| gone(topic, error))?;
        if let (Some(shard), Offset::Offset(offset)) = (shard(element.partition()), element.offset()) {
            offsets.insert(shard, offset);
        }
    }
    Ok(offsets)
}

/// The offset of the first record of each partition that was published then or later; none where there is no such.
pub(super) fn offsets_at<C: Consumer<Context>>(
    consumer: &C,
    topic: &str,
    times: &[(u16, OffsetDateTime)],
) -> Result<BTreeMap<u16, i64>, KafkaError> {
    let mut asked = TopicPartitionList::with_capacity(times.len());
    for (shard, time) in times {
        let milliseconds = i64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX).max(0);
        asked
            .add_partition_offset(topic, partition(*shard), Offset::Offset(milliseconds))
            .map_err(|error| KafkaError::Client("name a place", error))?;
    }
    let answer = consumer.offsets_for_times(asked, LOOK_BOUND).map_err(|error| gone(topic, error))?;
    let mut offsets = BTreeMap::new();
    for element in answer.elements() {
        element.error().map_err(|error| gone(topic, error))?;
        if let (Some(shard), Offset::Offset(offset)) = (shard(element.partition()), element.offset()) {
            offsets.insert(shard, offset);
        }
    }
    Ok(offsets)
}

fn gone(topic: &str, error: Library) -> KafkaError {
    match error.rdkafka_error_code() {
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
            KafkaError::NoTopic(topic.to_owned())
        }
        _ => KafkaError::Client("ask for a partition's ends", error),
    }
}

/// The headers of a record, as `schemas` takes them.
pub(super) fn headers<'a>(message: &'a BorrowedMessage<'_>) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    headers.map(|header| (header.key, header.value.unwrap_or_default()))
}
