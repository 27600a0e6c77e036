//! Asking brokers about topics: whether they are there, and how they are set.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::metadata::Metadata;
use schemas::{Topic, TopicSetting};
use tokio::time::{Instant, sleep, timeout};

use super::client::{Apart, Context, LOOK_BOUND, blocking, config};
use super::error::KafkaError;

/// How long the brokers are waited for at the start.
pub(super) const START_BOUND: Duration = Duration::from_mins(1);
pub(super) const START_PAUSE: Duration = Duration::from_millis(200);
/// How long they may take to answer when somebody asks whether they are there.
pub(super) const CHECK_BOUND: Duration = Duration::from_millis(1500);

/// A setting of a topic that is not what it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What it has to be.
    pub setting: &'static TopicSetting,
    /// What it is.
    pub found: String,
}

/// A client that asks.
pub(super) struct Admin {
    client: Arc<Apart<AdminClient<Context>>>,
    brokers: String,
    prefix: String,
}

impl Admin {
    pub(super) fn new(brokers: &str, prefix: String) -> Result<Self, KafkaError> {
        let client = AdminClient::from_config_and_context(&config(brokers), Context).map_err(KafkaError::Settings)?;
        Ok(Self { client: Apart::new(client), brokers: brokers.to_owned(), prefix })
    }

    pub(super) fn client(&self) -> &AdminClient<Context> {
        self.client.get()
    }

    pub(super) fn name(&self, topic: Topic) -> String {
        format!("{}{}", self.prefix, topic.name())
    }

    /// Whether anybody answers.
    pub(super) async fn ask(&self, bound: Duration) -> Result<(), KafkaError> {
        self.metadata(Topic::Conversations, bound).await.map(drop)
    }

    /// Waits until somebody answers.
    pub(super) async fn wait(&self, bound: Duration) -> Result<(), KafkaError> {
        let end = Instant::now() + bound;
        let mut told = false;
        loop {
            let Err(error) = self.ask(CHECK_BOUND).await else { return Ok(()) };
            let brokers = self.brokers.clone();
            if Instant::now() >= end {
                return Err(KafkaError::Away { brokers, source: Box::new(error) });
            }
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(brokers, "waiting for Kafka at {brokers}");
            }
            sleep(START_PAUSE).await;
        }
    }

    pub(super) async fn metadata(&self, topic: Topic, bound: Duration) -> Result<Metadata, KafkaError> {
        let (client, name) = (self.client.clone(), self.name(topic));
        let asked = move || client.get().inner().fetch_metadata(Some(&name), bound);
        blocking(move || asked().map_err(|error| KafkaError::Client("ask for a topic", error))).await
    }

    /// What of these topics' settings is not as it has to be. The topics are there.
    pub(super) async fn differences(&self, topics: &[Topic]) -> Result<Vec<(Topic, Vec<Difference>)>, KafkaError> {
        let named: Vec<_> = topics.iter().map(|topic| (*topic, self.name(*topic))).collect();
        let resources: Vec<_> = named.iter().map(|(_, name)| ResourceSpecifier::Topic(name)).collect();
        let asked_for = options();
        let description = self.client().describe_configs(&resources, &asked_for);
        let described =
            answered(description).await?.map_err(|error| KafkaError::Client("read topics' settings", error))?;
        let mut all = Vec::with_capacity(named.len());
        for described in described {
            let described = described.map_err(|code| KafkaError::Broker("read topics' settings", code))?;
            let OwnedResourceSpecifier::Topic(of) = &described.specifier else { continue };
            let Some((topic, _)) = named.iter().find(|(_, name)| name == of) else { continue };
            let found = |name| described.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default();
            let differences = topic.settings().iter().filter_map(|setting| {
                let found = found(setting.name);
                (found != setting.value).then_some(Difference { setting, found })
            });
            all.push((*topic, differences.collect()));
        }
        Ok(all)
    }
}

/// The leader of each partition; `None` where there is no such topic.
pub(super) fn partitions(metadata: &Metadata) -> Option<Vec<i32>> {
    let topic = metadata.topics().first().filter(|topic| !topic.partitions().is_empty())?;
    Some(topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::leader).collect())
}

pub(super) fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(LOOK_BOUND)).operation_timeout(Some(LOOK_BOUND))
}

/// What a broker was asked for, within a bound even where the client forgets about its own.
pub(super) async fn answered<T>(asked: impl Future<Output = T>) -> Result<T, KafkaError> {
    let bound = LOOK_BOUND * 2;
    timeout(bound, asked).await.map_err(|_| KafkaError::Late(bound))
}
