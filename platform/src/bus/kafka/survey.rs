//! The topics as they are in Kafka at this moment, for those who want to see.

use rdkafka::metadata::Metadata;
use schemas::Topic;
use schemas::binary_mode::Head;

use super::admin::{Admin, Difference, START_BOUND, partitions};
use super::client::{LOOK_BOUND, blocking, patiently};
use super::error::KafkaError;
use super::peek::Peek;

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurveyedTopic {
    /// Which one.
    pub topic: Topic,
    /// Its partitions, in the order of their numbers; `None` where there is no such topic.
    pub partitions: Option<Vec<SurveyedPartition>>,
    /// Its settings that are not as they have to be.
    pub differences: Vec<Difference>,
}

/// A partition as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SurveyedPartition {
    /// Its number, which is the shard's.
    pub shard: u16,
    /// The offset of the first record.
    pub first_offset: i64,
    /// The offset that comes next.
    pub next_offset: i64,
    /// The position of the first record, where that is one of ours.
    pub first: Option<u64>,
    /// The furthest record, where the last is one of ours.
    pub head: Option<Head>,
}

impl SurveyedPartition {
    /// How many records it holds.
    pub fn records(&self) -> u64 {
        self.next_offset.saturating_sub(self.first_offset).max(0).unsigned_abs()
    }

    /// Whether its first or its last record is none of ours.
    pub fn is_foreign(&self) -> bool {
        self.records() > 0 && (self.first.is_none() || self.head.is_none())
    }
}

/// Looks at all topics. `prefix` is what their names begin with, empty but for tests.
///
/// # Errors
/// Brokers that do not answer, who are waited for for a minute.
pub async fn survey(brokers: &str, prefix: &str) -> Result<Vec<SurveyedTopic>, KafkaError> {
    let admin = Admin::new(brokers, prefix.to_owned())?;
    admin.wait(START_BOUND).await?;
    let mut surveyed = Vec::with_capacity(Topic::ALL.len());
    for topic in Topic::ALL {
        let metadata = admin.metadata(topic, LOOK_BOUND).await?;
        let Some(shards) = numbers(&metadata) else {
            surveyed.push(SurveyedTopic { topic, partitions: None, differences: Vec::new() });
            continue;
        };
        let differences = admin.differences(&[topic]).await?.into_iter().flat_map(|(_, found)| found).collect();
        let found = patiently(|| {
            let (brokers, name, shards) = (brokers.to_owned(), admin.name(topic), shards.clone());
            blocking(move || look(&brokers, &name, &shards))
        });
        surveyed.push(SurveyedTopic { topic, partitions: Some(found.await?), differences });
    }
    Ok(surveyed)
}

/// The numbers of a topic's partitions; `None` where there is no such topic.
fn numbers(metadata: &Metadata) -> Option<Vec<u16>> {
    let count = partitions(metadata)?.len();
    Some((0..u16::try_from(count).unwrap_or(u16::MAX)).collect())
}

fn look(brokers: &str, name: &str, shards: &[u16]) -> Result<Vec<SurveyedPartition>, KafkaError> {
    let peek = Peek::new(brokers)?;
    let spans = peek.spans(name, shards)?;
    let filled = || spans.iter().filter(|span| span.high > span.low);
    let firsts: Vec<_> = filled().map(|span| (span.shard, span.low)).collect();
    let lasts: Vec<_> = filled().map(|span| (span.shard, span.high - 1)).collect();
    let (first, last) = (peek.at(name, &firsts)?, peek.at(name, &lasts)?);
    let partition = |span: &super::peek::Span| SurveyedPartition {
        shard: span.shard,
        first_offset: span.low,
        next_offset: span.high,
        first: first.get(&span.shard).and_then(|found| found.identity).map(|identity| identity.position),
        head: last.get(&span.shard).and_then(|found| found.identity).map(|identity| identity.head()),
    };
    Ok(spans.iter().map(partition).collect())
}
