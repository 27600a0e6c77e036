//! The idempotent producer: records in the order in which they are given, and where each of them landed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError as Library, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer};
use schemas::Record;
use schemas::binary_mode::Replayed;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout_at};

use super::client::{Apart, Context, config, partition};
use super::error::KafkaError;

/// How long the records of one call may take. An outage is an error by then, and the producer another.
pub(super) const PUBLISH_BOUND: Duration = Duration::from_secs(5);
/// The pause before a record for which the producer's queue has no room is offered again.
const FULL_PAUSE: Duration = Duration::from_millis(2);
/// Records written before others get their turn.
const TURN: usize = 64;

/// The producer in use.
///
/// It never gives a record up: one that timed out alone, and its successor did not, would leave a gap. What takes too
/// long is ended here instead, by ending the producer with all that it has, the last records first.
pub(super) struct Producers {
    brokers: String,
    base: String,
    current: Mutex<Option<Arc<Producer>>>,
    count: AtomicU64,
}

/// One producer, which one failure ends.
pub(super) struct Producer {
    /// Tells it from those before it.
    pub(super) number: u64,
    client: Arc<Apart<ThreadedProducer<Reports>>>,
}

/// Hands on what becomes of each record.
pub(super) struct Reports(Context);

/// Which record of a call it is, and who wants to know.
pub(super) struct Slip {
    index: usize,
    reports: Sender<Report>,
}

type Report = (usize, Result<i64, Library>);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: Library, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Slip>;

    fn delivery(&self, result: &DeliveryResult<'_>, slip: Box<Slip>) {
        let report = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        // There is room for every record of the call; who waits no longer need not know.
        let _ = slip.reports.try_send((slip.index, report));
    }
}

impl Producers {
    pub(super) fn new(brokers: &str, base: String) -> Self {
        Self { brokers: brokers.to_owned(), base, current: Mutex::new(None), count: AtomicU64::new(0) }
    }

    /// The one in use, made if need be.
    pub(super) fn current(&self) -> Result<Arc<Producer>, KafkaError> {
        let mut current = self.current.lock();
        if let Some(producer) = &*current {
            return Ok(Arc::clone(producer));
        }
        let mut config = config(&self.brokers);
        config
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            .set("acks", "all")
            .set("max.in.flight.requests.per.connection", "5")
            .set("message.timeout.ms", "0")
            // Records that wait for their turn make batches by themselves: 1 ms cost latency and brought no rate.
            .set("linger.ms", "0")
            .set("retry.backoff.ms", "50")
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "65536");
        let client =
            ThreadedProducer::from_config_and_context(&config, Reports(Context)).map_err(KafkaError::Settings)?;
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::clone(current.insert(Arc::new(Producer { number, client: Apart::new(client) }))))
    }

    /// Ends this producer, with whatever it still has.
    fn end(&self, producer: &Producer) {
        let mut current = self.current.lock();
        if current.as_ref().is_some_and(|current| current.number == producer.number) {
            *current = None;
            metrics::counter!("parlance_bus_producers_ended_total").increment(1);
        }
        producer.client.get().purge(PurgeConfig::default().queue().inflight().non_blocking());
    }

    /// Publishes these records and says at which offset each one is. If one is not there, none may be.
    pub(super) async fn send(
        &self,
        producer: &Producer,
        records: &[(&Record, &str, Option<Replayed>)],
        end: Instant,
    ) -> Result<Vec<i64>, KafkaError> {
        let (reports, mut landed) = channel(records.len().max(1));
        let sent = async {
            for (index, record) in records.iter().enumerate() {
                self.enqueue(producer, *record, Slip { index, reports: reports.clone() }, end).await?;
                if index % TURN == TURN - 1 {
                    yield_now().await;
                }
            }
            metrics::gauge!("parlance_bus_queue_records").set(producer.client.get().in_flight_count());
            collect(records.len(), &mut landed, end).await
        };
        let offsets = sent.await;
        if offsets.is_err() {
            self.end(producer);
        }
        offsets
    }

    async fn enqueue(
        &self,
        producer: &Producer,
        (record, topic, replayed): (&Record, &str, Option<Replayed>),
        slip: Slip,
        end: Instant,
    ) -> Result<(), KafkaError> {
        let mut binary =
            record.to_binary_mode(&self.base).map_err(|error| KafkaError::Unwritable(record.place(), error))?;
        binary.headers.extend(replayed.iter().flat_map(Replayed::headers));
        let mut headers = OwnedHeaders::new_with_capacity(binary.headers.len());
        for (key, value) in &binary.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut message = BaseRecord::with_opaque_to(topic, Box::new(slip))
            .partition(partition(record.shard))
            .key(&binary.key)
            .payload(&binary.data)
            .headers(headers);
        loop {
            match producer.client.get().send(message) {
                Ok(()) => return Ok(()),
                Err((Library::MessageProduction(Code::QueueFull), back)) if Instant::now() < end => message = back,
                Err((error, _)) => return Err(KafkaError::Client("publish records", error)),
            }
            sleep(FULL_PAUSE).await;
        }
    }
}

/// Waits for what became of each record.
async fn collect(count: usize, landed: &mut Receiver<Report>, end: Instant) -> Result<Vec<i64>, KafkaError> {
    let mut offsets = vec![-1; count];
    for _ in 0..count {
        match timeout_at(end, landed.recv()).await {
            Ok(Some((index, Ok(offset)))) => offsets[index] = offset,
            Ok(Some((_, Err(error)))) => return Err(KafkaError::Client("publish records", error)),
            Ok(None) | Err(_) => return Err(KafkaError::Late(PUBLISH_BOUND)),
        }
    }
    Ok(offsets)
}
