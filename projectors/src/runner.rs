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
        let (mut backoff, mut well) = (Backoff::default(), Instant::now());
        loop {
            // A transaction that has begun is finished first, or given up in time.
            let Err(interruption) = self.follow(&mut backoff, &shutdown).await else { return };
            let wait = match interruption {
                Interruption::Fenced => {
                    tracing::info!(topic = self.topic.name(), "another one moved the checkpoints: going on from there");
                    PACE
                }
                ref failure => {
                    if backoff.is_well() {
                        well = Instant::now();
                    }
                    self.measure_stall(well).await;
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

    /// The same while nothing is applied, since `well`.
    async fn measure_stall(&self, well: Instant) {
        let heads = self.bus.heads(self.topic).await.unwrap_or_default();
        let applied = |shard| self.positions.get(self.topic, shard);
        let behind: u64 = heads.iter().map(|(shard, head)| head.saturating_sub(applied(*shard))).sum();
        for projection in &self.projections {
            lag(projection.describe().name, behind, well.elapsed().as_secs_f64());
        }
    }

    /// How far behind each projection is: in positions, and in seconds since `oldest` if it is at all.
    async fn measure_lag(&self, running: &[Running], oldest: OffsetDateTime) -> Result<(), Interruption> {
        let heads = self.bus.heads(self.topic).await?;
        let age = (OffsetDateTime::now_utc() - oldest).as_seconds_f64().max(0.0);
        for one in running {
            let behind: u64 = heads.iter().zip(&one.applied).map(|((_, head), at)| head.saturating_sub(*at)).sum();
            lag(one.name, behind, age);
        }
        Ok(())
    }
}

/// Tells how far behind a projection is; not at all, if by no position.
fn lag(projection: &'static str, positions: u64, seconds: f64) {
    let seconds = if positions == 0 { 0.0 } else { seconds };
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    metrics::gauge!("parlance_projection_lag_positions", "projection" => projection).set(positions as f64);
    metrics::gauge!("parlance_projection_lag_seconds", "projection" => projection).set(seconds);
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

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use schemas::{Event, Role};
    use testkit::Database;
    use tokio_util::sync::DropGuard;

    use super::*;
    use crate::database::APPLICATION;
    use crate::projection::Description;
    use crate::testing::{Room, World, ann, ben, registered};

    const BOUND: Duration = Duration::from_secs(20);

    fn start(world: &World, database: &Database) -> (AppliedPositions, DropGuard) {
        let (applied, shutdown) = (AppliedPositions::default(), CancellationToken::new());
        let bus: Arc<dyn Bus> = Arc::clone(&world.bus) as _;
        tokio::spawn(run(database.pool().clone(), bus, applied.clone(), shutdown.clone()));
        (applied, shutdown.drop_guard())
    }

    async fn applied_all(world: &World, applied: &AppliedPositions) {
        assert!(applied.reached(&world.log.heads(), BOUND).await, "not applied in time");
    }

    async fn number(database: &Database, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(database.pool()).await.unwrap()
    }

    #[tokio::test]
    async fn rows_follow_the_log_and_a_restart_goes_on_from_the_checkpoints() {
        let (world, database) = (World::new(), Database::new().await);
        let mut room = Room::new(5);
        world.append(registered(1, "ann")).await;
        world.append(room.created(&[(ann(), Role::Owner), (ben(), Role::Member)])).await;
        for _ in 0..900 {
            world.append(room.said(ann())).await;
        }
        // More than the bus remembers: what came before is read from the log.
        let (applied, stop) = start(&world, &database);
        applied_all(&world, &applied).await;
        assert_eq!(number(&database, "SELECT count(*) FROM read.timeline").await, 901);
        drop(stop);
        world.append(room.delivered(ben(), 7, 0)).await;
        world.append(room.left(ben())).await;
        let (applied, _stop) = start(&world, &database);
        applied_all(&world, &applied).await;
        assert_eq!(number(&database, "SELECT count(*) FROM read.timeline").await, 902);
        assert_eq!(number(&database, "SELECT member_count::bigint FROM read.conversations").await, 1);
        assert_eq!(number(&database, "SELECT delivered_to FROM read.receipts").await, 7);
        let behind = "SELECT count(*) FROM read.checkpoints WHERE topic = 1 AND shard = 1 AND position <> 903";
        assert_eq!(number(&database, behind).await, 0);
    }

    #[tokio::test]
    async fn a_poison_event_parks_its_key_for_its_projection_alone() {
        let (world, database) = (World::new(), Database::new().await);
        // All in one shard, and so in one batch.
        let mut rooms = [Room::new(4), Room::new(8), Room::new(12)];
        for room in &mut rooms {
            world.append(room.created(&[(ann(), Role::Owner)])).await;
            world.append(room.said(ann())).await;
        }
        world.append(rooms[1].said_with(ann(), |message| message.content = Some("no \0 column takes it".into()))).await;
        for room in &mut rooms {
            world.append(room.said(ann())).await;
        }
        let (applied, stop) = start(&world, &database);
        applied_all(&world, &applied).await;
        drop(stop);
        world.append(rooms[1].said(ann())).await;
        world.append(rooms[2].said(ann())).await;
        let (applied, _stop) = start(&world, &database);
        applied_all(&world, &applied).await;
        let parked: Vec<(String, Uuid, String)> =
            sqlx::query_as("SELECT projection, key, error FROM read.parked ORDER BY position")
                .fetch_all(database.pool())
                .await
                .unwrap();
        let follows = "follows a parked event of its key";
        let errors: Vec<&str> = parked.iter().map(|(_, _, error)| error.as_str()).collect();
        assert_eq!(errors, ["PostgreSQL refuses a value with 22021", follows, follows]);
        assert!(parked.iter().all(|(projection, key, _)| projection == "timeline" && *key == rooms[1].id));
        // What came before it stands, and so does everything else.
        assert_eq!(number(&database, "SELECT count(*) FROM read.timeline").await, 2 + 3 + 4);
        assert_eq!(number(&database, "SELECT sum(last_seq)::bigint FROM read.conversations").await, 3 + 5 + 4);
    }

    /// Fails, or panics, at whatever it is told to.
    struct Fragile(fn(&Record) -> Result<(), ApplyError>);

    #[async_trait]
    impl Projection for Fragile {
        fn describe(&self) -> Description {
            Description { name: "fragile", topic: Topic::Users, tables: &[] }
        }

        async fn apply(&self, connection: &mut PgConnection, batch: &[Arc<Record>]) -> Result<(), ApplyError> {
            for record in batch {
                (self.0)(record)?;
                let insert = "INSERT INTO fragile SELECT $1";
                sqlx::query(insert).bind(record.key).execute(&mut *connection).await?;
            }
            Ok(())
        }
    }

    static PANICS: Fragile = Fragile(|record| match &record.event {
        Event::UserRegistered(user) if user.username == "ben" => panic!("not ben"),
        _ => Ok(()),
    });

    #[tokio::test]
    async fn a_projection_that_panics_parks_what_it_panics_at() {
        let (world, database) = (World::new(), Database::new().await);
        sqlx::query("CREATE TABLE read.fragile (key uuid)").execute(database.pool()).await.unwrap();
        for (user, name) in [(4, "ann"), (8, "ben"), (12, "cleo"), (8, "ben again")] {
            world.append(registered(user, name)).await;
        }
        let (applied, bus) = (AppliedPositions::default(), Arc::clone(&world.bus) as Arc<dyn Bus>);
        let runner = Runner::new(database.pool(), &bus, &applied, Topic::Users, vec![&PANICS]);
        let running = tokio::spawn(runner.run(CancellationToken::new()));
        applied_all(&world, &applied).await;
        running.abort();
        assert_eq!(number(&database, "SELECT count(*) FROM read.fragile").await, 2);
        assert_eq!(number(&database, "SELECT count(DISTINCT key) + count(*) FROM read.parked").await, 1 + 2);
    }

    #[tokio::test]
    async fn of_two_runners_only_one_applies_each_batch() {
        let (world, database) = (World::new(), Database::new().await);
        let runners = [start(&world, &database), start(&world, &database)];
        let mut room = Room::new(5);
        world.append(room.created(&[(ann(), Role::Owner), (ben(), Role::Member)])).await;
        for number in 0..400 {
            world.append(if number % 7 == 3 { room.left(ben()) } else { room.said(ann()) }).await;
            if number % 7 == 3 {
                world.append(room.joined(ben(), Role::Member)).await;
            }
            tokio::task::yield_now().await;
        }
        for (applied, _) in &runners {
            applied_all(&world, applied).await;
        }
        assert_eq!(number(&database, "SELECT count(*) FROM read.timeline").await, i64::try_from(room.seq).unwrap());
        assert_eq!(
            number(&database, "SELECT last_seq FROM read.conversations").await,
            i64::try_from(room.seq).unwrap()
        );
        assert_eq!(number(&database, "SELECT count(*) FROM read.parked").await, 0);
        assert_eq!(number(&database, "SELECT member_count::bigint FROM read.conversations").await, 2);
    }

    #[tokio::test]
    async fn a_lost_connection_costs_a_moment() {
        let (world, database) = (World::new(), Database::new().await);
        let (applied, _stop) = start(&world, &database);
        let mut room = Room::new(5);
        world.append(room.created(&[(ann(), Role::Owner)])).await;
        for _ in 0..5 {
            applied_all(&world, &applied).await;
            let killed: i64 = sqlx::query_scalar(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                  WHERE datname = current_database() AND application_name = $1",
            )
            .bind(APPLICATION)
            .fetch_one(database.pool())
            .await
            .unwrap();
            assert!(killed > 0);
            world.append(room.said(ann())).await;
        }
        applied_all(&world, &applied).await;
        assert_eq!(number(&database, "SELECT count(*) FROM read.timeline").await, 6);
    }
}
