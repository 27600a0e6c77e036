//! The topics: made as they have to be, or refused.

use std::time::Duration;

use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use schemas::Topic;
use tokio::time::{Instant, sleep};

use super::admin::{Admin, Difference, answered, options, partitions};
use super::client::{LEADERS_BOUND, LOOK_BOUND, partition};
use super::error::KafkaError;

const LEADERS_PAUSE: Duration = Duration::from_millis(50);
/// Copies of each record, where there are brokers enough.
const COPIES: usize = 3;

/// The one who makes, checks and empties topics.
pub(super) struct Topics {
    admin: Admin,
    shards: u16,
}

impl Topics {
    pub(super) fn new(brokers: &str, prefix: String, shards: u16) -> Result<Self, KafkaError> {
        Ok(Self { admin: Admin::new(brokers, prefix)?, shards })
    }

    pub(super) fn name(&self, topic: Topic) -> String {
        self.admin.name(topic)
    }

    pub(super) fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Makes the topics that are missing and checks those that are there.
    pub(super) async fn ensure(&self) -> Result<(), KafkaError> {
        let mut missing = Vec::new();
        let mut brokers = 0;
        for topic in Topic::ALL {
            let metadata = self.admin.metadata(topic, LOOK_BOUND).await?;
            brokers = metadata.brokers().len();
            if partitions(&metadata).is_none() {
                missing.push(topic);
            }
        }
        if !missing.is_empty() {
            self.create(&missing, brokers).await?;
        }
        self.wait_for_leaders().await?;
        self.check_settings().await
    }

    /// Takes out all records before these offsets.
    pub(super) async fn empty(&self, topic: Topic, before: &[(u16, i64)]) -> Result<(), KafkaError> {
        let mut offsets = TopicPartitionList::with_capacity(before.len());
        for (shard, offset) in before {
            offsets
                .add_partition_offset(&self.name(topic), partition(*shard), Offset::Offset(*offset))
                .map_err(|error| KafkaError::Client("name a place", error))?;
        }
        let deletion = self.admin.client().delete_records(&offsets, &options());
        let deleted = answered(deletion).await?.map_err(|error| KafkaError::Client("delete records", error))?;
        for element in deleted.elements() {
            element.error().map_err(|error| KafkaError::Client("delete records", error))?;
        }
        Ok(())
    }

    async fn create(&self, missing: &[Topic], brokers: usize) -> Result<(), KafkaError> {
        let copies = brokers.clamp(1, COPIES);
        let names: Vec<_> = missing.iter().map(|topic| (topic, self.name(*topic))).collect();
        let topics: Vec<NewTopic<'_>> = names
            .iter()
            .map(|(topic, name)| {
                let copies_wanted = TopicReplication::Fixed(i32::try_from(copies).expect("at most three"));
                let new = NewTopic::new(name, i32::from(self.shards), copies_wanted);
                let new = topic.settings().iter().fold(new, |new, setting| new.set(setting.name, setting.value));
                if copies == COPIES { new.set("min.insync.replicas", "2") } else { new }
            })
            .collect();
        let creation = self.admin.client().create_topics(&topics, &options());
        let created = answered(creation).await?.map_err(|error| KafkaError::Client("make topics", error))?;
        for result in created {
            match result {
                Ok(name) => tracing::info!(topic = name, shards = self.shards, copies, "made the topic {name}"),
                // Somebody else makes them too.
                Err((_, Code::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(KafkaError::Broker("make topics", code)),
            }
        }
        Ok(())
    }

    /// Waits until each partition can be used, and checks how many there are.
    async fn wait_for_leaders(&self) -> Result<(), KafkaError> {
        let end = Instant::now() + LEADERS_BOUND;
        for topic in Topic::ALL {
            loop {
                let metadata = self.admin.metadata(topic, LOOK_BOUND).await?;
                let leaders = partitions(&metadata);
                if let Some(leaders) = &leaders
                    && leaders.len() != usize::from(self.shards)
                {
                    let (found, wanted) = (leaders.len(), usize::from(self.shards));
                    return Err(KafkaError::Partitions { topic: self.name(topic), found, wanted });
                }
                if leaders.is_some_and(|leaders| leaders.iter().all(|leader| *leader >= 0)) {
                    break;
                }
                if Instant::now() >= end {
                    return Err(KafkaError::NoTopic(self.name(topic)));
                }
                sleep(LEADERS_PAUSE).await;
            }
        }
        Ok(())
    }

    async fn check_settings(&self) -> Result<(), KafkaError> {
        for (topic, differences) in self.admin.differences(&Topic::ALL).await? {
            if let Some(Difference { setting, found }) = differences.into_iter().next() {
                let (topic, setting, wanted) = (self.name(topic), setting.name, setting.value);
                return Err(KafkaError::Setting { topic, setting, found, wanted });
            }
        }
        Ok(())
    }
}
