//! The relay: what was committed, in position order, to the bus.

use std::sync::Arc;

use event_store::{Committed, Log};
use platform::bus::Bus;
use schemas::Position;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::feed::Feed;
use crate::leadership::Leadership;
use crate::options::Options;
use crate::others::Others;
use crate::replay::Replayer;
use crate::running::Running;
use crate::status::RelayStatus;
use crate::stored::public;
use crate::work::Work;

/// Events that are published again at once.
const REPLAYED_PAGE: u32 = 250;

/// The committed heads of all shards: where a new in-process bus begins.
///
/// # Errors
/// A database that does not answer.
pub async fn heads(log: &Log) -> Result<Vec<Position>, sqlx::Error> {
    let heads = log.heads().await?;
    Ok(heads.into_iter().map(|h| Position { topic: public(h.topic), shard: h.shard, position: h.head }).collect())
}

/// Hands what was committed to the bus, of the shards that it leads.
///
/// It goes on where the bus ends. What this process commits, and what others tell it that they commit, is handed on without
/// reading it back; what was missed is found by the shards' heads and read from the log, several shards at a time. While
/// the bus fails nothing is kept: the log has it.
pub struct Relay {
    log: Log,
    bus: Arc<dyn Bus>,
    leadership: Leadership,
    committed: Option<Committed>,
    others: Option<Others>,
    options: Options,
    requests: Option<PgPool>,
    status: RelayStatus,
}

impl Relay {
    /// A relay from `log` to `bus`.
    pub fn new(log: Log, bus: Arc<dyn Bus>, leadership: Leadership, options: Options) -> Self {
        Self {
            log,
            bus,
            leadership,
            committed: None,
            others: None,
            options,
            requests: None,
            status: RelayStatus::default(),
        }
    }

    /// Takes what this process commits straight from its store.
    #[must_use]
    pub fn following(mut self, committed: Committed) -> Self {
        self.committed = Some(committed);
        self
    }

    /// Takes what others commit from them.
    #[must_use]
    pub fn following_others(mut self, others: Others) -> Self {
        self.others = Some(others);
        self
    }

    /// Publishes records again too, where that is asked for in this database's shared state.
    #[must_use]
    pub fn replaying(mut self, requests: PgPool) -> Self {
        self.requests = Some(requests);
        self
    }

    /// How it stands, once it runs.
    pub fn status(&self) -> RelayStatus {
        self.status.clone()
    }

    /// Runs until `shutdown`; what fails is tried again.
    pub async fn run(self, shutdown: CancellationToken) {
        describe();
        let work = |options| {
            let (log, bus, leadership) = (self.log.clone(), Arc::clone(&self.bus), self.leadership.clone());
            Work::new(log, bus, leadership, options, shutdown.clone())
        };
        // A small page, for what is live waits while it is published.
        let again = work(Options { page: self.options.page.min(REPLAYED_PAGE), ..self.options });
        let replayer = self.requests.map(|pool| Replayer::new(pool, again));
        let replaying = async {
            if let Some(replayer) = replayer {
                replayer.run(shutdown.clone()).await;
            }
        };
        let running = Running::new(work(self.options), Feed::of(self.committed, self.others), self.status);
        tokio::join!(running.run(shutdown.clone()), replaying);
    }
}

fn describe() {
    metrics::describe_histogram!("parlance_relay_latency_seconds", "From a decision to the delivery to the bus.");
    metrics::describe_counter!("parlance_relay_records_total", "Records published, by where they came from.");
    metrics::describe_counter!("parlance_relay_replayed_records_total", "Records published again, on request.");
    metrics::describe_gauge!("parlance_relay_led_shards", "Shards that this process relays.");
    metrics::describe_gauge!("parlance_relay_stalled_shards", "Shards that stand still until somebody sees to it.");
    metrics::describe_gauge!("parlance_relay_lag_positions", "Events committed and not published, of the shards led.");
}
