//! The topics: made as they have to be, or refused.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use schemas::Topic;
use tokio::time::{Instant, sleep, timeout};

use super::client::{Apart, Context, LEADERS_BOUND, LOOK_BOUND, blocking, config, partition};
use super::error::KafkaError;

const LEADERS_PAUSE: Duration = Duration::from_millis(50);
/// No record ever goes by itself: whoever reads from the beginning finds it there.
const SETTINGS: [(&str, &str); 2] = [("retention.ms", "-1"), ("cleanup.policy", "delete")];
/// Copies of each record, where there are brokers enough.
const COPIES: usize = 3;

/// The one who makes, checks and empties topics.
pub(super) struct Topics {
    admin: Arc<Apart<AdminClient<Context>>>,
    prefix: String,
    shards: u16,
}

impl Topics {
    pub(super) fn new(brokers: &str, prefix: String, shards: u16) -> Result<Self, KafkaError> {
        let admin = AdminClient::from_config_and_context(&config(brokers), Context).map_err(KafkaError::Settings)?;
        Ok(Self { admin: Apart::new(admin), prefix, shards })
    }

    pub(super) fn name(&self, topic: Topic) -> String {
        format!("{}{}", self.prefix, topic.name())
    }

    /// Whether anybody answers.
    pub(super) async fn ask(&self, bound: Duration) -> Result<(), KafkaError> {
        self.metadata(Topic::Conversations, bound).await.map(drop)
    }

    /// Makes the topics that are missing and checks those that are there.
    pub(super) async fn ensure(&self) -> Result<(), KafkaError> {
        let mut missing = Vec::new();
        let mut brokers = 0;
        for topic in Topic::ALL {
            let metadata = self.metadata(topic, LOOK_BOUND).await?;
            brokers = metadata.brokers().len();
            if partitions(&metadata).is_none() {
                missing.push(self.name(topic));
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
        let deletion = self.admin.get().delete_records(&offsets, &options());
        let deleted = answered(deletion).await?.map_err(|error| KafkaError::Client("delete records", error))?;
        for element in deleted.elements() {
            element.error().map_err(|error| KafkaError::Client("delete records", error))?;
        }
        Ok(())
    }

    async fn metadata(&self, topic: Topic, bound: Duration) -> Result<Metadata, KafkaError> {
        let (admin, name) = (self.admin.clone(), self.name(topic));
        let asked = move || admin.get().inner().fetch_metadata(Some(&name), bound);
        blocking(move || asked().map_err(|error| KafkaError::Client("ask for a topic", error))).await
    }

    async fn create(&self, names: &[String], brokers: usize) -> Result<(), KafkaError> {
        let copies = brokers.clamp(1, COPIES);
        let topics: Vec<NewTopic<'_>> = names
            .iter()
            .map(|name| {
                let copies_wanted = TopicReplication::Fixed(i32::try_from(copies).expect("at most three"));
                let mut topic = NewTopic::new(name, i32::from(self.shards), copies_wanted);
                for (setting, value) in SETTINGS {
                    topic = topic.set(setting, value);
                }
                if copies == COPIES { topic.set("min.insync.replicas", "2") } else { topic }
            })
            .collect();
        let creation = self.admin.get().create_topics(&topics, &options());
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
                let metadata = self.metadata(topic, LOOK_BOUND).await?;
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
        let names = Topic::ALL.map(|topic| self.name(topic));
        let resources = names.each_ref().map(|name| ResourceSpecifier::Topic(name));
        let description = self.admin.get().describe_configs(&resources, &options());
        let described =
            answered(description).await?.map_err(|error| KafkaError::Client("read topics' settings", error))?;
        for (topic, described) in names.iter().zip(described) {
            let described = described.map_err(|code| KafkaError::Broker("read topics' settings", code))?;
            for (setting, wanted) in SETTINGS {
                let found = described.get(setting).and_then(|entry| entry.value.clone()).unwrap_or_default();
                if found != wanted {
                    return Err(KafkaError::Setting { topic: topic.clone(), setting, found, wanted });
                }
            }
        }
        Ok(())
    }
}

/// The leader of each partition; `None` where there is no such topic.
fn partitions(metadata: &Metadata) -> Option<Vec<i32>> {
    let topic = metadata.topics().first().filter(|topic| !topic.partitions().is_empty())?;
    Some(topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::leader).collect())
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(LOOK_BOUND)).operation_timeout(Some(LOOK_BOUND))
}

/// What a broker was asked for, within a bound even where the client forgets about its own.
async fn answered<T>(asked: impl Future<Output = T>) -> Result<T, KafkaError> {
    let bound = LOOK_BOUND * 2;
    timeout(bound, asked).await.map_err(|_| KafkaError::Late(bound))
}
