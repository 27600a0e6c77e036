//! Keeps tables up to date: one runner for each consumer and topic, its projections in one transaction with their checkpoints.

mod apply;
mod lag;
mod reading;

use std::sync::Arc;
use std::time::Duration;

use platform::applied::AppliedPositions;
use platform::bus::{Bus, BusError, Subscription};
use platform::leases::{BEAT, Held};
use schemas::{Position, Topic};
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::checkpoints::Places;
use crate::database::connect_runner;
use crate::projection::{ApplyError, Consumer, Projection};
use apply::{Running, least};
use lag::Lag;
use reading::{collect, news};

/// A transaction that takes longer is given up and tried again on another connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a runner has to begin again from the checkpoints.
#[derive(Debug, thiserror::Error)]
enum Interruption {
    #[error("the read models' database cannot be written")]
    Database(#[from] sqlx::Error),
    #[error("the read models' database did not answer within {PATIENCE:?}")]
    TimedOut,
    #[error("the event topic cannot be read")]
    Bus(#[from] BusError),
    #[error("another one moved the checkpoints")]
    Fenced,
    #[error("the lease of a shard was lost")]
    Lost,
}

impl From<ApplyError> for Interruption {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Database(error) => Self::Database(error),
            ApplyError::Poison(error) => Self::Database(sqlx::Error::Protocol(error)),
        }
    }
}

/// Why a runner came to an end without a failure.
enum End {
    /// It was told to.
    Stopped,
    /// Other shards are held, or some are read again from where they stand.
    Again,
}

/// What the runners of a process have in common.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) pool: PgPool,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) positions: AppliedPositions,
    /// The shards to apply, as they change.
    pub(crate) held: watch::Receiver<Held>,
    /// How many there are of each topic.
    pub(crate) shards: u16,
    /// What its connections are called.
    pub(crate) application: String,
}

/// Applies the shards of a topic that are held.
pub(crate) struct Runner {
    shared: Shared,
    consumer: Consumer,
    topic: Topic,
    projections: Vec<&'static dyn Projection>,
    lag: Lag,
}

/// Shards whose next record did not come: they are read again in a while, and the others go on.
#[derive(Default)]
struct Gaps {
    last: Option<Position>,
    backoff: Backoff,
}

impl Gaps {
    /// When to read again, after a gap before `found`.
    fn found(&mut self, found: Position) -> Instant {
        if self.last.replace(found) != Some(found) {
            self.backoff.succeeded();
        }
        let wait = self.backoff.failed();
        tracing::warn!(%found, "{found} came, and something before it did not: read again in {wait:?}");
        Instant::now() + wait
    }
}

impl Runner {
    pub(crate) fn new(
        shared: Shared,
        consumer: Consumer,
        topic: Topic,
        projections: Vec<&'static dyn Projection>,
    ) -> Self {
        let lag = Lag::new(projections.iter().map(|projection| projection.describe().name));
        Self { shared, consumer, topic, projections, lag }
    }

    /// Applies what comes until `shutdown`, or until nobody gives out shards any more.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.keep_on(&shutdown) => {}
            () = self.lag.measure(&*self.shared.bus, self.topic) => {}
        }
    }

    async fn keep_on(&self, shutdown: &CancellationToken) {
        let mut held = self.shared.held.clone();
        let (mut connection, mut backoff, mut gaps) = (None, Backoff::default(), Gaps::default());
        loop {
            let shards: Vec<u16> = held.borrow_and_update().shards(self.topic).collect();
            // A transaction that has begun is finished first, or given up in time.
            let followed = if shards.is_empty() {
                connection = None;
                self.stand_by(&mut held, shutdown).await
            } else {
                self.follow(&mut connection, &shards, &mut held, &mut backoff, &mut gaps, shutdown).await
            };
            let wait = match followed {
                Ok(End::Stopped) => return,
                Ok(End::Again) => continue,
                Err(reason @ (Interruption::Fenced | Interruption::Lost)) => {
                    tracing::info!(topic = self.topic.name(), "{reason}: going on from where they stand");
                    // Who was stopped for a while learns within a beat what it holds now.
                    if matches!(reason, Interruption::Lost) { BEAT } else { self.consumer.pace() }
                }
                Err(failure) => {
                    let (wait, failure): (_, &dyn std::error::Error) = (backoff.failed(), &failure);
                    let topic = self.topic.name();
                    tracing::warn!(topic, error = failure, "projections wait {wait:?}, and try again");
                    wait
                }
            };
            connection = None;
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = timeout(wait, held.changed()) => {}
            }
        }
    }

    /// Waits for shards.
    async fn stand_by(
        &self,
        held: &mut watch::Receiver<Held>,
        shutdown: &CancellationToken,
    ) -> Result<End, Interruption> {
        self.lag.stands(&[]);
        Ok(tokio::select! {
            () = shutdown.cancelled() => End::Stopped,
            changed = self.changed(held, &[]) => changed,
        })
    }

    /// Applies what comes of these shards, from the checkpoints on, for as long as they are those held.
    async fn follow(
        &self,
        connection: &mut Option<PgConnection>,
        shards: &[u16],
        held: &mut watch::Receiver<Held>,
        backoff: &mut Backoff,
        gaps: &mut Gaps,
        shutdown: &CancellationToken,
    ) -> Result<End, Interruption> {
        let opened = tokio::select! {
            () = shutdown.cancelled() => return Ok(End::Stopped),
            opened = self.open(connection, shards) => opened,
        };
        let (connection, mut running, mut subscription) = opened?;
        let mut read = least(&running);
        let (mut last_batch, mut again) = (None, None);
        loop {
            let batch = tokio::select! {
                () = shutdown.cancelled() => return Ok(End::Stopped),
                changed = self.changed(held, shards) => return Ok(changed),
                () = until(again) => return Ok(End::Again),
                batch = collect(&mut *subscription, last_batch, self.consumer.pace()) => batch?,
            };
            last_batch = Some(Instant::now());
            let (batch, gap) = news(batch, &mut read);
            if let (Some(found), None) = (gap, again) {
                again = Some(gaps.found(found));
            }
            let Some(first) = batch.first() else { continue };
            self.lag.begins(first.at);
            let began = Instant::now();
            let apply = self.apply(connection, &mut running, &batch);
            timeout(PATIENCE, apply).await.map_err(|_| Interruption::TimedOut)??;
            metrics::histogram!("parlance_projection_batch_seconds").record(began.elapsed().as_secs_f64());
            self.post(&least(&running));
            self.lag.stands(&running);
            if backoff.succeeded() {
                tracing::info!(topic = self.topic.name(), "projections go on");
            }
        }
    }

    /// Reads where the shards stand, and from there on.
    async fn open<'a>(
        &self,
        connection: &'a mut Option<PgConnection>,
        shards: &[u16],
    ) -> Result<(&'a mut PgConnection, Vec<Running>, Box<dyn Subscription>), Interruption> {
        let load = async {
            let connection = match connection {
                Some(connection) => connection,
                none => none.insert(connect_runner(&self.shared.pool, &self.shared.application).await?),
            };
            let running = Running::load(connection, self.consumer, &self.projections, self.topic, shards).await?;
            Ok::<_, sqlx::Error>((connection, running))
        };
        let (connection, running) = timeout(PATIENCE, load).await.map_err(|_| Interruption::TimedOut)??;
        let applied = least(&running);
        self.post(&applied);
        self.lag.stands(&running);
        let after: Vec<(u16, u64)> = applied.into_iter().collect();
        let subscription = self.shared.bus.subscribe_at_leisure(self.topic, &after, self.consumer.leisure()).await?;
        Ok((connection, running, subscription))
    }

    /// Waits until other shards than these are held.
    async fn changed(&self, held: &mut watch::Receiver<Held>, shards: &[u16]) -> End {
        loop {
            if held.changed().await.is_err() {
                return End::Stopped;
            }
            if !held.borrow_and_update().shards(self.topic).eq(shards.iter().copied()) {
                return End::Again;
            }
        }
    }

    /// Tells those who wait for a position.
    fn post(&self, applied: &Places) {
        if self.consumer != Consumer::ReadModels {
            return;
        }
        let topic = self.topic;
        let places = applied.iter().map(|(&shard, &position)| Position { topic, shard, position });
        self.shared.positions.post(places);
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
