//! What all of our clients of Kafka have in common.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError as Library, RDKafkaErrorCode as Code};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::error::KafkaError;

/// How long a look may take.
pub(super) const LOOK_BOUND: Duration = Duration::from_secs(5);
/// How long partitions may be without a leader.
pub(super) const LEADERS_BOUND: Duration = Duration::from_secs(20);
/// The pause before what failed in passing is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// Hands the library's log on. It tries again by itself, so that nothing it says is worse than a warning.
#[derive(Debug)]
pub(super) struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(facility, "Kafka's client: {message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::debug!(facility, "Kafka's client: {message}"),
            RDKafkaLogLevel::Debug => tracing::trace!(facility, "Kafka's client: {message}"),
        }
    }

    fn error(&self, error: Library, reason: &str) {
        match error.rdkafka_error_code() {
            // Told of every partition that has nothing new.
            Some(Code::PartitionEOF) => {}
            Some(code) if passes(code) => tracing::debug!(%error, "Kafka's client: {reason}"),
            _ => {
                metrics::counter!("parlance_bus_client_errors_total").increment(1);
                tracing::warn!(%error, "Kafka's client: {reason}");
            }
        }
    }
}

impl ConsumerContext for Context {}

/// Whether the library gets over it by itself: connections lost, and answers that did not come.
pub(super) fn passes(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::NetworkException
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::CoordinatorLoadInProgress
    )
}

/// The settings of every client.
pub(super) fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "parlance")
        // A topic made by asking for it would have the wrong partitions, and its records an end.
        .set("allow.auto.create.topics", "false")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.timeout.ms", "10000")
        .set("log.connection.close", "false")
        .set_log_level(RDKafkaLogLevel::Info);
    config
}

/// The settings of a client that reads. Its group is a name and no more: we assign, and keep our own places.
pub(super) fn consumer_config(brokers: &str) -> ClientConfig {
    let mut config = config(brokers);
    config
        .set("group.id", "parlance")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Where there is nothing to read at a place, that is for us to know.
        .set("auto.offset.reset", "error")
        .set("fetch.min.bytes", "1")
        .set("fetch.error.backoff.ms", "100")
        .set("fetch.queue.backoff.ms", "10");
    config
}

/// A client that goes on a thread of its own, for its end takes a while.
#[derive(Debug)]
pub(super) struct Apart<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Apart<T> {
    pub(super) fn new(client: T) -> Arc<Self> {
        Arc::new(Self(Some(client)))
    }

    pub(super) fn get(&self) -> &T {
        self.0.as_ref().expect("it is there until the end")
    }
}

impl<T: Send + 'static> Drop for Apart<T> {
    fn drop(&mut self) {
        let client = self.0.take();
        // Without a thread to spare it goes right here.
        let _ = thread::Builder::new().name("kafka-client-end".to_owned()).spawn(move || drop(client));
    }
}

/// Does what blocks where that may be.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, KafkaError> {
    spawn_blocking(work).await?
}

/// Tries again what fails in passing; longest while leaders take office, as those of new partitions do.
pub(super) async fn patiently<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, KafkaError>
where
    F: Future<Output = Result<T, KafkaError>>,
{
    let began = Instant::now();
    loop {
        let outcome = attempt().await;
        let patience = match &outcome {
            Err(KafkaError::Client(_, error)) => match error.rdkafka_error_code() {
                Some(Code::LeaderNotAvailable | Code::NotLeaderForPartition) => LEADERS_BOUND,
                Some(code) if passes(code) => LOOK_BOUND,
                _ => return outcome,
            },
            _ => return outcome,
        };
        if began.elapsed() >= patience {
            return outcome;
        }
        sleep(PAUSE).await;
    }
}

/// A partition's number as Kafka has it.
pub(super) fn partition(shard: u16) -> i32 {
    i32::from(shard)
}

/// A shard by its partition's number.
pub(super) fn shard(partition: i32) -> Option<u16> {
    u16::try_from(partition).ok()
}
