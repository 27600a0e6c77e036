//! A topic of one partition with a line of text a record, apart from the event topics: for what is kept outside the database.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as Library, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{Apart, Context, LOOK_BOUND, blocking, config, consumer_config, passes, patiently};
use super::error::KafkaError;
use super::peek::spans;

/// The one partition.
const PARTITION: i32 = 0;
/// How long a line may take to be there for good.
const SEND_BOUND: Duration = Duration::from_secs(5);
/// Lines that are read at once.
const PAGE: usize = 100;
/// Copies of each record, where there are brokers enough.
const COPIES: usize = 3;

/// The topic.
pub struct LineTopic {
    brokers: String,
    name: String,
    producer: Mutex<Option<FutureProducer<Context>>>,
    reader: Option<Arc<Apart<BaseConsumer<Context>>>>,
    /// The offset of the line that is read next.
    next: i64,
}

impl LineTopic {
    /// The topic of this name; nobody is asked yet.
    pub fn new(brokers: &str, name: &str) -> Self {
        let (brokers, name) = (brokers.to_owned(), name.to_owned());
        Self { brokers, name, producer: Mutex::new(None), reader: None, next: 0 }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the topic where there is none; no record of it ever goes by itself.
    ///
    /// # Errors
    /// Brokers that do not answer, or do not make it.
    pub async fn ensure(&self) -> Result<(), KafkaError> {
        let (settings, name) = (config(&self.brokers), self.name.clone());
        let admin = AdminClient::from_config_and_context(&settings, Context).map_err(KafkaError::Settings)?;
        let admin = Apart::new(admin);
        let asked = admin.clone();
        let brokers = blocking(move || {
            let metadata = asked.get().inner().fetch_metadata(None, LOOK_BOUND);
            let metadata = metadata.map_err(|error| KafkaError::Client("ask for a topic", error))?;
            let there = metadata.topics().iter().any(|topic| topic.name() == name && !topic.partitions().is_empty());
            Ok((!there).then(|| metadata.brokers().len()))
        })
        .await?;
        let Some(brokers) = brokers else { return Ok(()) };
        let copies = i32::try_from(brokers.clamp(1, COPIES)).unwrap_or(1);
        let topic = NewTopic::new(&self.name, 1, TopicReplication::Fixed(copies));
        let topic = topic.set("retention.ms", "-1").set("cleanup.policy", "delete");
        let options = AdminOptions::new().request_timeout(Some(LOOK_BOUND)).operation_timeout(Some(LOOK_BOUND));
        let made = admin.get().create_topics([&topic], &options).await;
        for made in made.map_err(|error| KafkaError::Client("make topics", error))? {
            match made {
                Ok(name) => tracing::info!(topic = name, "made the topic {name}"),
                Err((_, Code::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(KafkaError::Broker("make topics", code)),
            }
        }
        Ok(())
    }

    /// Adds lines behind the last, one after the other; each is there for good, or none that follows is.
    ///
    /// # Errors
    /// Brokers that do not take them in time.
    pub async fn append(&self, lines: &[String]) -> Result<(), KafkaError> {
        let producer = self.producer()?;
        for line in lines {
            let record = FutureRecord::<(), str>::to(&self.name).partition(PARTITION).payload(line.as_str());
            if let Err((error, _)) = producer.send(record, SEND_BOUND).await {
                // What it still has must not come later, behind what another one adds.
                *self.producer.lock() = None;
                return Err(KafkaError::Client("publish records", error));
            }
        }
        Ok(())
    }

    fn producer(&self) -> Result<FutureProducer<Context>, KafkaError> {
        let mut current = self.producer.lock();
        if let Some(producer) = &*current {
            return Ok(producer.clone());
        }
        let mut config = config(&self.brokers);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("message.timeout.ms", SEND_BOUND.as_millis().to_string());
        let producer = FutureProducer::from_config_and_context(&config, Context).map_err(KafkaError::Settings)?;
        Ok(current.insert(producer).clone())
    }

    /// The last lines in their order, up to a bound; none where there are none, or no topic.
    ///
    /// # Errors
    /// Brokers that do not answer.
    pub async fn tail(&self) -> Result<Vec<String>, KafkaError> {
        let (brokers, name) = (self.brokers.clone(), self.name.clone());
        patiently(|| {
            let (brokers, name) = (brokers.clone(), name.clone());
            blocking(move || {
                let consumer = consumer(&brokers)?;
                let Some((low, high)) = span(&consumer, &name)? else { return Ok(Vec::new()) };
                // A place may be empty, as behind a transaction of somebody's.
                let begin = low.max(high - i64::try_from(PAGE).unwrap_or(1));
                assign(&consumer, &name, begin)?;
                Ok(read(&consumer, high)?.into_iter().map(|(_, line)| line).collect())
            })
        })
        .await
    }

    /// Goes back to the first line.
    pub fn rewind(&mut self) {
        self.reader = None;
    }

    /// The next lines, as many as are there, up to a bound.
    ///
    /// # Errors
    /// Brokers that do not answer.
    pub async fn page(&mut self) -> Result<Vec<String>, KafkaError> {
        let (brokers, name) = (self.brokers.clone(), self.name.clone());
        let (reader, next) = (self.reader.clone(), self.next);
        let (reader, lines) = blocking(move || {
            let (reader, begin) = match reader {
                Some(reader) => (reader, None),
                None => (Apart::new(consumer(&brokers)?), Some(())),
            };
            let Some((low, high)) = span(reader.get(), &name)? else { return Ok((None, Vec::new())) };
            if begin.is_some() {
                assign(reader.get(), &name, low)?;
            } else if next >= high {
                return Ok((Some(reader), Vec::new()));
            }
            let lines = read(reader.get(), high)?;
            Ok((Some(reader), lines))
        })
        .await?;
        self.reader = reader;
        if let Some((offset, _)) = lines.last() {
            self.next = offset + 1;
        }
        Ok(lines.into_iter().map(|(_, line)| line).collect())
    }
}

fn consumer(brokers: &str) -> Result<BaseConsumer<Context>, KafkaError> {
    let mut config = consumer_config(brokers);
    config.set("enable.partition.eof", "true").set("queued.max.messages.kbytes", "8192");
    BaseConsumer::from_config_and_context(&config, Context).map_err(KafkaError::Settings)
}

/// Where the lines begin and end; `None` where there are none.
fn span(consumer: &BaseConsumer<Context>, name: &str) -> Result<Option<(i64, i64)>, KafkaError> {
    match spans(consumer, name, &[0]) {
        Ok(spans) => Ok(spans.first().filter(|span| span.high > span.low).map(|span| (span.low, span.high))),
        Err(KafkaError::NoTopic(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn assign(consumer: &BaseConsumer<Context>, name: &str, offset: i64) -> Result<(), KafkaError> {
    let mut place = TopicPartitionList::with_capacity(1);
    place
        .add_partition_offset(name, PARTITION, Offset::Offset(offset))
        .map_err(|error| KafkaError::Client("name a place", error))?;
    consumer.assign(&place).map_err(|error| KafkaError::Client("read records", error))
}

/// Lines with their offsets, until `end` or the bound of a page.
fn read(consumer: &BaseConsumer<Context>, end: i64) -> Result<Vec<(i64, String)>, KafkaError> {
    let (mut lines, mut ended) = (Vec::new(), false);
    let until = Instant::now() + LOOK_BOUND;
    while lines.len() < PAGE {
        let left = until.saturating_duration_since(Instant::now());
        match consumer.poll(left) {
            None if left.is_zero() && ended => break,
            None if left.is_zero() => return Err(KafkaError::Late(LOOK_BOUND)),
            None => {}
            Some(Ok(message)) => {
                let text = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
                lines.push((message.offset(), text));
                if message.offset() + 1 >= end {
                    break;
                }
            }
            // Said of the end as it was when it was last looked at, perhaps.
            Some(Err(Library::PartitionEOF(_))) if lines.is_empty() && !ended => ended = true,
            Some(Err(Library::PartitionEOF(_))) => break,
            Some(Err(error)) if error.rdkafka_error_code().is_some_and(passes) => {}
            Some(Err(error)) => return Err(KafkaError::Client("read records", error)),
        }
    }
    Ok(lines)
}
