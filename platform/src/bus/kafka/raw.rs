//! Reading a topic as it stands there, record by record, whatever the records are: for people who look on.
//!
//! Unlike a subscription it hands on what came twice, what is published again, and what this version does not know.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError as Library, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use schemas::Topic;
use schemas::binary_mode::identity;
use time::OffsetDateTime;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};

use super::admin::{Admin, START_BOUND, partitions};
use super::client::{Apart, Context, LOOK_BOUND, blocking, consumer_config, partition, passes, patiently, shard};
use super::error::KafkaError;
use super::peek::{Peek, Span, headers, offsets_at, spans};
use super::place::{Place, start};
use super::subscription::{LOOK_EVERY, Reader, Task, finished, is_another};

/// The pause before a topic that is not there is looked for again.
const PAUSE: Duration = Duration::from_millis(500);

/// Where reading a shard begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first record there is.
    Beginning,
    /// With what comes from now on.
    End,
    /// At a position, and from there on with all that stands behind it.
    Position(u64),
    /// Where nothing before was published later than this.
    Since(OffsetDateTime),
}

/// A record as it stands in Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord {
    /// The topic.
    pub topic: Topic,
    /// The shard, which is the partition.
    pub shard: u16,
    /// Where it stands there.
    pub offset: i64,
    /// Its headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// What it carries.
    pub data: Vec<u8>,
}

/// One who reads a topic. It belongs to no group, and leaves nothing behind.
pub struct RawReader {
    admin: Admin,
    brokers: String,
    topic: Topic,
    follows: bool,
    /// Where shards begin that were not opened yet; those that are not named are not read, if any is.
    starts: BTreeMap<u16, Start>,
    otherwise: Option<Start>,
    places: BTreeMap<u16, Reading>,
    opened: bool,
    reader: Option<Reader>,
    looking: Option<Task<Vec<Span>>>,
    look_at: Instant,
    /// Whether there was a moment since the last look at which all that had come was taken.
    waited: bool,
}

/// How far a shard was read.
struct Reading {
    /// Its place; `last` there is the furthest position that was seen.
    place: Place,
    /// Records are passed over until one is further than this.
    passing: Option<u64>,
    /// Where it ends for who does not follow.
    end: i64,
    ended: bool,
}

impl RawReader {
    /// Reads a topic from these starts, and of other shards `otherwise`, where that is given. Who does not follow comes
    /// to an end where the topic ends now. `prefix` is what its name begins with, empty but for tests.
    ///
    /// # Errors
    /// Brokers that do not answer, who are waited for for a minute.
    pub async fn new(
        (brokers, prefix): (&str, &str),
        topic: Topic,
        starts: impl IntoIterator<Item = (u16, Start)>,
        otherwise: Option<Start>,
        follows: bool,
    ) -> Result<Self, KafkaError> {
        let admin = Admin::new(brokers, prefix.to_owned())?;
        admin.wait(START_BOUND).await?;
        Ok(Self {
            admin,
            brokers: brokers.to_owned(),
            topic,
            follows,
            starts: starts.into_iter().collect(),
            otherwise,
            places: BTreeMap::new(),
            opened: false,
            reader: None,
            looking: None,
            look_at: Instant::now(),
            waited: false,
        })
    }

    /// The next record; `None` at the end, for who does not follow. Who does goes on when the topic is made anew, after
    /// what was read before.
    ///
    /// Cancel-safe, but while the topic is being opened.
    ///
    /// # Errors
    /// Whatever who does not follow cannot get over; a shard that there is not.
    pub async fn next(&mut self) -> Result<Option<RawRecord>, KafkaError> {
        loop {
            let Some(reader) = self.reader.clone() else {
                self.open().await?;
                continue;
            };
            if !self.follows && self.places.values().all(|of| of.ended || of.place.next >= of.end) {
                return Ok(None);
            }
            self.tend(&reader);
            let message = if let Some(message) = reader.get().recv().now_or_never() {
                message
            } else {
                self.waited = true;
                tokio::select! {
                    message = reader.get().recv() => message,
                    looked = finished(&mut self.looking) => {
                        self.looked(looked)?;
                        continue;
                    }
                    () = sleep_until(self.look_at), if self.looking.is_none() => continue,
                }
            };
            if let Some(record) = self.take(message)? {
                return Ok(Some(record));
            }
        }
    }

    /// Begins to read, or goes on where it was; whoever follows waits for a topic that is not there.
    async fn open(&mut self) -> Result<(), KafkaError> {
        loop {
            match self.try_to_open().await {
                Ok(()) => return Ok(()),
                Err(KafkaError::NoTopic(_)) if self.follows => {
                    // What comes there is new.
                    let from_now = self.starts.values_mut().chain(&mut self.otherwise);
                    from_now.filter(|start| **start == Start::End).for_each(|start| *start = Start::Beginning);
                }
                // Before anything was read it may be a mistake of whoever asked; then it is told.
                Err(error) if self.follows && self.opened && is_passing(&error) => {}
                Err(error) => return Err(error),
            }
            sleep(PAUSE).await;
        }
    }

    async fn try_to_open(&mut self) -> Result<(), KafkaError> {
        let name = self.admin.name(self.topic);
        let metadata = self.admin.metadata(self.topic, LOOK_BOUND).await?;
        let count = partitions(&metadata).ok_or_else(|| KafkaError::NoTopic(name.clone()))?.len();
        let there = 0..u16::try_from(count).unwrap_or(u16::MAX);
        if let Some(shard) = self.starts.keys().find(|shard| !there.contains(shard)) {
            return Err(KafkaError::NoShard { topic: self.topic, shard: *shard });
        }
        let wanted: Vec<(u16, Begin)> = there
            .filter_map(|shard| match self.places.get(&shard) {
                Some(reading) => Some((shard, Begin::After(reading.furthest()))),
                None => Some((shard, Begin::At(*self.starts.get(&shard).or(self.otherwise.as_ref())?))),
            })
            .collect();
        let (reader, begun) = patiently(|| {
            let (brokers, name, wanted, follows) = (self.brokers.clone(), name.clone(), wanted.clone(), self.follows);
            blocking(move || assign(&brokers, &name, &wanted, follows))
        })
        .await?;
        for Begun { span, offset, last, passing } in begun {
            let mut place = Place::new(span.shard, last);
            place.open(span);
            place.next = offset;
            place.look();
            self.places.insert(span.shard, Reading { place, passing, end: span.high, ended: false });
        }
        self.reader = Some(reader);
        self.opened = true;
        self.look_at = Instant::now() + LOOK_EVERY;
        self.waited = false;
        Ok(())
    }

    fn close(&mut self) {
        self.reader = None;
        self.looking = None;
    }

    fn take(&mut self, message: Result<BorrowedMessage<'_>, Library>) -> Result<Option<RawRecord>, KafkaError> {
        let message = match message {
            Ok(message) => message,
            Err(Library::PartitionEOF(number)) => {
                if let Some(reading) = shard(number).and_then(|shard| self.places.get_mut(&shard)) {
                    reading.ended = true;
                }
                return Ok(None);
            }
            Err(error) if error.rdkafka_error_code().is_some_and(passes) => return Ok(None),
            Err(error) if self.follows && error.rdkafka_error_code().is_some_and(is_gone) => {
                self.close();
                return Ok(None);
            }
            Err(error) => return Err(KafkaError::Client("read records", error)),
        };
        let Some(shard) = shard(message.partition()) else { return Ok(None) };
        let Some(reading) = self.places.get_mut(&shard) else { return Ok(None) };
        reading.place.next = message.offset() + 1;
        if !self.follows && message.offset() >= reading.end {
            return Ok(None);
        }
        let identity = identity(headers(&message)).ok();
        if let Some(passed) = reading.passing {
            if identity.is_none_or(|identity| identity.position <= passed) {
                return Ok(None);
            }
            reading.passing = None;
        }
        if let Some(identity) = identity {
            reading.place.last = reading.place.last.max(identity.head().position);
        }
        Ok(Some(RawRecord {
            topic: self.topic,
            shard,
            offset: message.offset(),
            headers: headers(&message).map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
            data: message.payload().unwrap_or_default().to_vec(),
        }))
    }

    /// Looks at the partitions' ends when it is time: what tells that one was made anew.
    fn tend(&mut self, reader: &Reader) {
        if self.look_at > Instant::now() || self.looking.is_some() {
            return;
        }
        self.look_at = Instant::now() + LOOK_EVERY;
        let (reader, name) = (Arc::clone(reader), self.admin.name(self.topic));
        self.places.values_mut().for_each(|reading| reading.place.look());
        let shards: Vec<u16> = self.places.keys().copied().collect();
        self.looking = Some(spawn_blocking(move || spans(reader.get(), &name, &shards)));
    }

    fn looked(&mut self, looked: Result<Vec<Span>, KafkaError>) -> Result<(), KafkaError> {
        let waited = std::mem::take(&mut self.waited);
        match looked {
            Ok(spans) => {
                let mut lost = false;
                for (reading, span) in self.places.values_mut().zip(spans) {
                    lost |= reading.place.is_lost(span, waited);
                }
                if lost {
                    self.close();
                }
                Ok(())
            }
            Err(KafkaError::NoTopic(_)) if self.follows => {
                self.close();
                Ok(())
            }
            // Brokers that are away are waited for.
            Err(_) if self.follows => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Reading {
    /// The furthest position that was seen, or is passed over.
    fn furthest(&self) -> u64 {
        self.place.last.max(self.passing.unwrap_or(0))
    }
}

/// Where a shard is to be read from.
#[derive(Clone, Copy)]
enum Begin {
    At(Start),
    /// After a position, in a partition that may be another than it was.
    After(u64),
}

/// Where it is read from, in the partition as it is.
struct Begun {
    span: Span,
    offset: i64,
    last: u64,
    passing: Option<u64>,
}

/// A client that reads these shards, and where each begins. Blocks.
fn assign(
    brokers: &str,
    topic: &str,
    wanted: &[(u16, Begin)],
    follows: bool,
) -> Result<(Reader, Vec<Begun>), KafkaError> {
    let mut config = consumer_config(brokers);
    config.set("queued.max.messages.kbytes", "16384").set("fetch.max.bytes", "8388608");
    if !follows {
        config.set("enable.partition.eof", "true");
    }
    let reader = StreamConsumer::from_config_and_context(&config, Context).map_err(KafkaError::Settings)?;
    let shards: Vec<u16> = wanted.iter().map(|(shard, _)| *shard).collect();
    let spans = spans(&reader, topic, &shards)?;
    let since = |(shard, begin): &(u16, Begin)| match begin {
        Begin::At(Start::Since(time)) => Some((*shard, *time)),
        _ => None,
    };
    let times: Vec<_> = wanted.iter().filter_map(since).collect();
    let times = if times.is_empty() { BTreeMap::new() } else { offsets_at(&reader, topic, &times)? };
    let lasts: Vec<_> = wanted
        .iter()
        .zip(&spans)
        .filter(|((_, begin), span)| matches!(begin, Begin::At(Start::End)) && span.high > span.low)
        .map(|(_, span)| (span.shard, span.high - 1))
        .collect();
    let lasts = if lasts.is_empty() { HashMap::new() } else { Peek::new(brokers)?.at(topic, &lasts)? };
    let mut assigned = TopicPartitionList::with_capacity(wanted.len());
    let mut begun = Vec::with_capacity(wanted.len());
    for ((shard, begin), span) in wanted.iter().zip(spans) {
        let (offset, last, passing) = match begin {
            Begin::At(Start::Beginning) => (span.low, 0, None),
            Begin::At(Start::End) => {
                let last = lasts.get(shard).and_then(|found| found.identity);
                (span.high, last.map_or(0, |identity| identity.head().position), None)
            }
            Begin::At(Start::Since(_)) => (times.get(shard).copied().unwrap_or(span.high), 0, None),
            Begin::At(Start::Position(position)) => {
                let before = position.saturating_sub(1);
                (start(before, span), before, Some(before))
            }
            Begin::After(position) => (start(*position, span), *position, Some(*position)),
        };
        assigned
            .add_partition_offset(topic, partition(*shard), Offset::Offset(offset))
            .map_err(|error| KafkaError::Client("name a place", error))?;
        begun.push(Begun { span, offset, last, passing });
    }
    reader.assign(&assigned).map_err(|error| KafkaError::Client("read partitions", error))?;
    Ok((Apart::new(reader), begun))
}

/// Whether it is worth another try.
fn is_passing(error: &KafkaError) -> bool {
    match error {
        KafkaError::Client(_, error) => error.rdkafka_error_code().is_some_and(passes),
        KafkaError::Late(_) => true,
        _ => false,
    }
}

/// Whether it says that the partition is not the one that was opened, or is not there.
fn is_gone(code: Code) -> bool {
    is_another(code) || matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition)
}
