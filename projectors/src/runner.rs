//! Keeps the read models up to date: one runner a topic, all its projections in one transaction with their checkpoints.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use platform::applied::AppliedPositions;
use platform::bus::{Bus, BusError, Subscription};
use schemas::{Position, Record, Topic};
use sqlx::{Connection, PgConnection, PgPool};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::careful::{self, Parked};
use crate::checkpoints::{self, Move};
use crate::database::connect;
use crate::projection::{ApplyError, Projection};
use crate::rebuild;
use crate::registry::PROJECTIONS;

/// The schema of the live read models.
pub(crate) const LIVE: &str = "read";
/// At most a batch in this time, unless [`ENOUGH`] wait; the first after a pause goes at once.
const PACE: Duration = Duration::from_millis(20);
const ENOUGH: usize = 500;
const MAX: usize = 2000;
/// A transaction that takes longer is given up and tried again on another connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs every projection until `shutdown`; what fails is tried again, and nothing is passed over.
pub async fn run(pool: PgPool, bus: Arc<dyn Bus>, applied: AppliedPositions, shutdown: CancellationToken) {
    if let Err(error) = rebuild::sweep(&pool).await {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "what a rebuild left behind stays for now");
    }
    let runners = Topic::ALL.map(|topic| {
        let projections = PROJECTIONS.iter().copied().filter(|projection| projection.describe().topic == topic);
        let runner = Runner::new(&pool, &bus, &applied, topic, projections.collect());
        runner.run(shutdown.clone())
    });
    futures::future::join_all(runners).await;
}

/// Why a runner has to begin again from the checkpoints.
#[derive(Debug, thiserror::Error)]
enum Interruption {
    #[error("the read models' database cannot be written")]
    Database(#[from] sqlx::Error),
    #[error("the read models' database did not answer within {PATIENCE:?}")]
    TimedOut,
    #[error("the event topic cannot be read")]
    Bus(#[from] BusError),
    #[error("{found} came, and something before it did not")]
    Gap { found: Position },
    #[error("another one moved the checkpoints")]
    Fenced,
}

impl From<ApplyError> for Interruption {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Database(error) => Self::Database(error),
            ApplyError::Poison(error) => Self::Database(sqlx::Error::Protocol(error)),
        }
    }
}

/// One projection in a runner.
struct Running {
    projection: &'static dyn Projection,
    name: &'static str,
    /// How far it has applied each shard.
    applied: Vec<u64>,
    /// The keys it has put aside.
    parked: HashSet<Uuid>,
}

pub(crate) struct Runner {
    pool: PgPool,
    bus: Arc<dyn Bus>,
    positions: AppliedPositions,
    topic: Topic,
    projections: Vec<&'static dyn Projection>,
}

impl Runner {
    pub(crate) fn new(
        pool: &PgPool,
        bus: &Arc<dyn Bus>,
        positions: &AppliedPositions,
        topic: Topic,
        projections: Vec<&'static dyn Projection>,
    ) -> Self {
        Self { pool: pool.clone(), bus: Arc::clone(bus), positions: positions.clone(), topic, projections }
    }

    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut backoff = Backoff::default();
        loop {
            // A transaction that has begun is finished first, or given up in time.
            let Err(interruption) = self.follow(&mut backoff, &shutdown).await else { return };
            let wait = match interruption {
                Interruption::Fenced => {
                    tracing::info!(topic = self.topic.name(), "another one moved the checkpoints: going on from there");
                    PACE
                }
                ref failure => {
                    let wait = backoff.failed();
                    let failure: &dyn std::error::Error = failure;
                    tracing::warn!(
                        topic = self.topic.name(),
                        error = failure,
                        "projections wait {wait:?}, and try again"
                    );
                    wait
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// Applies what comes, from the checkpoints on, until `shutdown`.
    async fn follow(&self, backoff: &mut Backoff, shutdown: &CancellationToken) -> Result<(), Interruption> {
        let heads = self.bus.heads(self.topic).await?;
        let shards = u16::try_from(heads.len()).unwrap_or(u16::MAX);
        let (mut connection, mut running) =
            timeout(PATIENCE, self.load(shards)).await.map_err(|_| Interruption::TimedOut)??;
        let mut read = least(&running, shards);
        self.post(&read);
        let after: Vec<(u16, u64)> = (0..shards).zip(read.iter().copied()).collect();
        let mut subscription = self.bus.subscribe(self.topic, &after).await?;
        let mut last_batch: Option<Instant> = None;
        loop {
            let batch = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                batch = collect(&mut *subscription, last_batch) => batch?,
            };
            last_batch = Some(Instant::now());
            let batch = news(batch, &mut read)?;
            let Some(first) = batch.first() else { continue };
            self.measure_lag(&running, first.at).await?;
            let began = Instant::now();
            let apply = self.apply(&mut connection, &mut running, &batch);
            timeout(PATIENCE, apply).await.map_err(|_| Interruption::TimedOut)??;
            metrics::histogram!("parlance_projection_batch_seconds").record(began.elapsed().as_secs_f64());
            self.post(&least(&running, shards));
            self.measure_lag(&running, first.at).await?;
            if backoff.succeeded() {
                tracing::info!(topic = self.topic.name(), "projections go on");
            }
        }
    }

    async fn load(&self, shards: u16) -> Result<(PgConnection, Vec<Running>), sqlx::Error> {
        let mut connection = connect(&self.pool, LIVE).await?;
        let mut running = Vec::with_capacity(self.projections.len());
        for &projection in &self.projections {
            let name = projection.describe().name;
            let applied = checkpoints::load(&mut connection, name, self.topic, shards).await?;
            let parked = careful::load(&mut connection, name).await?;
            running.push(Running { projection, name, applied, parked });
        }
        Ok((connection, running))
    }

    /// Applies a batch, and what cannot be applied is put aside.
    async fn apply(
        &self,
        connection: &mut PgConnection,
        running: &mut [Running],
        batch: &[Arc<Record>],
    ) -> Result<(), Interruption> {
        match self.transact(connection, running, batch, false).await {
            // Found only by looking closer, in a transaction that has not failed yet.
            Ok(Outcome::Poisoned) => self.transact(connection, running, batch, true).await.map(|_| ()),
            outcome => outcome.map(|_| ()),
        }
    }

    async fn transact(
        &self,
        connection: &mut PgConnection,
        running: &mut [Running],
        batch: &[Arc<Record>],
        closely: bool,
    ) -> Result<Outcome, Interruption> {
        let mut reached = vec![0; running.first().map_or(0, |one| one.applied.len())];
        for record in batch {
            reached[usize::from(record.shard)] = record.position;
        }
        let mut transaction = connection.begin().await?;
        // The checkpoints first: whoever rebuilds holds them, and nothing else may be held while waiting for them.
        let moves: Vec<Move> = running.iter().flat_map(|one| one.moves(&reached)).collect();
        if !checkpoints::advance(&mut transaction, self.topic, &moves).await? {
            transaction.rollback().await?;
            return Err(Interruption::Fenced);
        }
        for one in running.iter_mut() {
            let parked = match one.apply(&mut transaction, batch, closely).await {
                Ok(parked) => parked,
                Err(ApplyError::Poison(_)) if !closely => {
                    transaction.rollback().await?;
                    return Ok(Outcome::Poisoned);
                }
                Err(error) => return Err(error.into()),
            };
            careful::save(&mut transaction, one.name, self.topic, &parked).await?;
        }
        transaction.commit().await?;
        for one in running {
            for (applied, reached) in one.applied.iter_mut().zip(&reached) {
                *applied = (*reached).max(*applied);
            }
        }
        Ok(Outcome::Applied)
    }

    fn post(&self, positions: &[u64]) {
        let topic = self.topic;
        self.positions.post((0..).zip(positions).map(|(shard, position)| Position {
            topic,
            shard,
            position: *position,
        }));
    }

    /// How far behind each projection is: in positions, and in seconds since `oldest` if it is at all.
    async fn measure_lag(&self, running: &[Running], oldest: OffsetDateTime) -> Result<(), Interruption> {
        let heads = self.bus.heads(self.topic).await?;
        let age = (OffsetDateTime::now_utc() - oldest).as_seconds_f64().max(0.0);
        for one in running {
            let behind: u64 = heads.iter().zip(&one.applied).map(|((_, head), at)| head.saturating_sub(*at)).sum();
            let seconds = if behind == 0 { 0.0 } else { age };
            #[expect(clippy::cast_precision_loss, reason = "a gauge")]
            metrics::gauge!("parlance_projection_lag_positions", "projection" => one.name).set(behind as f64);
            metrics::gauge!("parlance_projection_lag_seconds", "projection" => one.name).set(seconds);
        }
        Ok(())
    }
}

enum Outcome {
    Applied,
    /// Some record cannot be applied, and nothing was.
    Poisoned,
}

impl Running {
    fn moves(&self, reached: &[u64]) -> impl Iterator<Item = Move> {
        let shards = (0..).zip(self.applied.iter().zip(reached));
        let ahead = shards.filter(|(_, (applied, reached))| reached > applied);
        ahead.map(|(shard, (from, to))| Move { projection: self.name, shard, from: *from, to: *to })
    }

    async fn apply(
        &mut self,
        connection: &mut PgConnection,
        batch: &[Arc<Record>],
        closely: bool,
    ) -> Result<Vec<Parked>, ApplyError> {
        let is_new = |record: &Arc<Record>| record.position > self.applied[usize::from(record.shard)];
        if !closely && self.parked.is_empty() && batch.iter().all(is_new) {
            careful::apply(connection, self.projection, batch).await?;
            return Ok(Vec::new());
        }
        let new: Vec<_> = batch.iter().filter(|record| is_new(record)).cloned().collect();
        if new.is_empty() {
            return Ok(Vec::new());
        }
        careful::apply_rest(connection, self.projection, new, &mut self.parked).await
    }
}

/// What all of them have applied of each shard.
fn least(running: &[Running], shards: u16) -> Vec<u64> {
    (0..usize::from(shards)).map(|shard| running.iter().map(|one| one.applied[shard]).min().unwrap_or(0)).collect()
}

/// The next batch: at once after a pause, else what has come by the time it is due.
async fn collect(
    subscription: &mut dyn Subscription,
    last_batch: Option<Instant>,
) -> Result<Vec<Arc<Record>>, BusError> {
    let mut batch = subscription.next(MAX).await?;
    let due = last_batch.map_or_else(Instant::now, |last| last + PACE);
    while batch.len() < ENOUGH {
        match timeout_at(due, subscription.next(MAX - batch.len())).await {
            Ok(more) => batch.extend(more?),
            Err(_) => break,
        }
    }
    Ok(batch)
}

/// Drops what came before, and moves `read` on; a gap is an error.
fn news(batch: Vec<Arc<Record>>, read: &mut [u64]) -> Result<Vec<Arc<Record>>, Interruption> {
    let mut fresh = Vec::with_capacity(batch.len());
    for record in batch {
        let found = record.place();
        let last = read.get_mut(usize::from(found.shard)).ok_or(Interruption::Gap { found })?;
        if found.position <= *last {
            continue;
        }
        if found.position != *last + 1 {
            return Err(Interruption::Gap { found });
        }
        *last = found.position;
        fresh.push(record);
    }
    Ok(fresh)
}
