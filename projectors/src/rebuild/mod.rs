//! Fills a projection anew from the log beside the live one, and puts it in its place, while traffic goes on.

mod definition;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use platform::bus::{Backfill, BusError};
use schemas::{Position, Record};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::careful::{self, Parked};
use crate::checkpoints::{self, Places};
use crate::database::{LIVE, bigint, connect, smallint};
use crate::projection::{ApplyError, Description, Projection};
use crate::registry::PROJECTIONS;

/// What stands for every projection.
const ALL: &str = "all";
/// Records read and applied at once.
const PAGE: usize = 5000;
/// What may be left to apply while the live projections wait.
const TAIL: u64 = 1000;
/// How often the rest is applied beside the live projections before it is applied while they wait, whatever it is.
const PASSES: u32 = 10;
/// How long the swap waits for readers of the old tables. Less than PostgreSQL's `deadlock_timeout` (1 s): who gives
/// up is the rebuild, never a reader.
const READERS: &str = "200ms";
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);
/// How long the swap may wait for a page of the log before it is given up: every runner waits for it.
const SILENCE: &str = "10s";
/// How long a rebuild that was killed may hold on to its name.
const GRACE: Duration = Duration::from_secs(2);

/// Why a projection was not rebuilt; the live one goes on as it was.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// There is none of this name.
    #[error("there is no projection {0:?}")]
    Unknown(String),
    /// Another rebuild of it runs.
    #[error("{0} is being rebuilt already")]
    Busy(&'static str),
    /// Readers of the old tables never paused.
    #[error("{0} could not be put in place: its tables are read without a pause")]
    Occupied(&'static str),
    /// The log does not hold all that the live projection has applied.
    #[error("{0} could not be put in place: the log does not hold all that the live one has applied")]
    Behind(&'static str),
    /// The database did not do it.
    #[error("the read models' database cannot be written")]
    Database(#[from] sqlx::Error),
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[from] BusError),
}

impl From<ApplyError> for RebuildError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Database(error) => Self::Database(error),
            ApplyError::Poison(error) => Self::Database(sqlx::Error::Protocol(error)),
        }
    }
}

/// A projection that was rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Its name.
    pub name: &'static str,
    /// How many records of its topics were read.
    pub records: u64,
    /// How many of them were put aside.
    pub parked: u64,
    /// How long it took.
    pub took: Duration,
}

/// Rebuilds the projection `which`, or `all`, from a log of so many `shards` a topic.
///
/// Readers see the old rows until they see all of the new ones. A live runner goes on from where the rebuild ended.
///
/// # Errors
/// See [`RebuildError`]. What was rebuilt before the error stays so.
pub async fn rebuild(
    pool: &PgPool,
    log: Arc<dyn Backfill>,
    shards: u16,
    which: &str,
) -> Result<Vec<Rebuilt>, RebuildError> {
    let wanted: Vec<_> =
        PROJECTIONS.iter().filter(|projection| which == ALL || projection.describe().name == which).collect();
    if wanted.is_empty() {
        return Err(RebuildError::Unknown(which.to_owned()));
    }
    let mut rebuilt = Vec::new();
    for projection in wanted {
        rebuilt.push(Rebuild::begin(pool, Arc::clone(&log), shards, *projection).await?.finish().await?);
    }
    Ok(rebuilt)
}

/// Drops what rebuilds left behind that were killed.
pub(crate) async fn sweep(pool: &PgPool) -> Result<(), sqlx::Error> {
    let mut connection = connect(pool, LIVE).await?;
    for projection in PROJECTIONS {
        let name = projection.describe().name;
        let left: bool = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
            .bind(schema(name))
            .fetch_one(&mut connection)
            .await?;
        if left && lock(&mut connection, name).await? {
            run(&mut connection, format!("DROP SCHEMA IF EXISTS {} CASCADE", schema(name))).await?;
            tracing::info!(projection = name, "dropped what an unfinished rebuild of {name} left behind");
        }
    }
    // And with it the locks.
    connection.close().await
}

/// The schema that `name` is rebuilt in.
fn schema(name: &str) -> String {
    format!("rebuild_{name}")
}

/// Takes the name for as long as the connection lives.
async fn lock(connection: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtext('parlance rebuild'), hashtext($1))")
        .bind(name)
        .fetch_one(connection)
        .await
}

/// Runs statements whose names come from the catalogue and the registry.
async fn run(connection: &mut PgConnection, statements: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await?;
    Ok(())
}

/// A projection that is being rebuilt.
struct Rebuild {
    projection: &'static dyn Projection,
    about: Description,
    schema: String,
    connection: PgConnection,
    log: Arc<dyn Backfill>,
    began: Instant,
    progress: Progress,
}

#[derive(Default)]
struct Progress {
    /// How far each shard of each topic was applied.
    reached: Vec<Position>,
    records: u64,
    parked_keys: HashSet<Uuid>,
    parked: Vec<Parked>,
}

impl Rebuild {
    async fn begin(
        pool: &PgPool,
        log: Arc<dyn Backfill>,
        shards: u16,
        projection: &'static dyn Projection,
    ) -> Result<Self, RebuildError> {
        let (about, began) = (projection.describe(), Instant::now());
        let schema = schema(about.name);
        let mut connection = connect(pool, &schema).await?;
        while !lock(&mut connection, about.name).await? {
            if began.elapsed() > GRACE {
                return Err(RebuildError::Busy(about.name));
            }
            sleep(PAUSE).await;
        }
        let all: Vec<u16> = (0..shards).collect();
        for topic in about.topics {
            checkpoints::load(&mut connection, about.consumer, &[about.name], *topic, &all).await?;
        }
        run(&mut connection, format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}")).await?;
        for table in about.tables {
            definition::copy(&mut connection, &schema, table).await?;
        }
        // Nothing of it counts before the swap, whose commit waits for all before it.
        run(&mut connection, "SET synchronous_commit TO off".to_owned()).await?;
        let places = about.topics.iter().flat_map(|topic| all.iter().map(move |shard| (*topic, *shard)));
        let reached = places.map(|(topic, shard)| Position { topic, shard, position: 0 }).collect();
        let progress = Progress { reached, ..Progress::default() };
        Ok(Self { projection, about, schema, connection, log, began, progress })
    }

    async fn finish(mut self) -> Result<Rebuilt, RebuildError> {
        let name = self.about.name;
        for pass in 0..PASSES {
            let before = self.progress.records;
            self.fill().await?;
            let news = self.progress.records - before;
            tracing::info!(projection = name, records = self.progress.records, "{name}: {news} more records applied");
            if pass == 0 {
                let analyze = |table: &&str| format!("ANALYZE {}.{table};", self.schema);
                let statements = self.about.tables.iter().map(analyze).collect();
                run(&mut self.connection, statements).await?;
            }
            if news < TAIL {
                break;
            }
        }
        for attempt in 1.. {
            match self.swap().await {
                Ok(()) => break,
                Err(RebuildError::Database(error)) if attempt < ATTEMPTS && is_lock_failure(&error) => {}
                Err(RebuildError::Database(error)) if is_lock_failure(&error) => {
                    return Err(RebuildError::Occupied(name));
                }
                Err(error) => return Err(error),
            }
            sleep(PAUSE).await;
            self.fill().await?;
        }
        run(&mut self.connection, format!("DROP SCHEMA {} CASCADE", self.schema)).await?;
        self.connection.close().await?;
        let (records, parked) = (self.progress.records, self.progress.parked.len() as u64);
        Ok(Rebuilt { name, records, parked, took: self.began.elapsed() })
    }

    /// Applies all there is beside the live projection.
    async fn fill(&mut self) -> Result<(), RebuildError> {
        for place in 0..self.progress.reached.len() {
            let mut page = read(&*self.log, self.progress.reached[place]).await?;
            while let Some(last) = page.last().map(|record| record.place()) {
                let more = page.len() == PAGE;
                let log = Arc::clone(&self.log);
                let mut transaction = self.connection.begin().await?;
                let applied = self.progress.apply(&mut transaction, self.projection, place, page);
                // The next page is read while this one is applied.
                let following = async { if more { read(&*log, last).await } else { Ok(Vec::new()) } };
                let (applied, following) = tokio::join!(applied, following);
                applied?;
                transaction.commit().await?;
                page = following?;
            }
        }
        Ok(())
    }

    /// Applies the rest while the live projections wait, and puts the new tables in the place of the old.
    async fn swap(&mut self) -> Result<(), RebuildError> {
        let Description { name, consumer, topics, tables } = self.about;
        let mut progress = Progress {
            reached: self.progress.reached.clone(),
            records: self.progress.records,
            parked_keys: self.progress.parked_keys.clone(),
            parked: Vec::new(),
        };
        let mut transaction = self.connection.begin().await?;
        // Sends autovacuum away, which would outlast our short wait for readers; hinders nobody else.
        if !tables.is_empty() {
            let old = all(tables, &|table| format!("{LIVE}.{table}"), ", ");
            let alone = format!("SET LOCAL lock_timeout TO '10s'; LOCK TABLE {old} IN SHARE UPDATE EXCLUSIVE MODE");
            run(&mut transaction, alone).await?;
        }
        // No runner moves a checkpoint from here on, and none holds a table while it waits for that.
        let fence = "SET LOCAL synchronous_commit TO on; LOCK TABLE read.checkpoints IN EXCLUSIVE MODE";
        run(&mut transaction, format!("SET LOCAL idle_in_transaction_session_timeout TO '{SILENCE}'; {fence}")).await?;
        for place in 0..progress.reached.len() {
            loop {
                let page = read(&*self.log, progress.reached[place]).await?;
                let more = page.len() == PAGE;
                progress.apply(&mut transaction, self.projection, place, page).await?;
                if !more {
                    break;
                }
            }
        }
        for topic in topics {
            let reached: Places =
                progress.reached.iter().filter(|at| at.topic == *topic).map(|at| (at.shard, at.position)).collect();
            let shards: Vec<u16> = reached.keys().copied().collect();
            let live = checkpoints::load(&mut transaction, consumer, &[name], *topic, &shards).await?;
            if live.values().flatten().any(|(shard, live)| live > &reached[shard]) {
                return Err(RebuildError::Behind(name));
            }
        }
        if !tables.is_empty() {
            exchange(&mut transaction, &self.schema, tables).await?;
        }
        place(&mut transaction, name, &progress.reached).await?;
        sqlx::query("DELETE FROM read.parked WHERE projection = $1").bind(name).execute(&mut *transaction).await?;
        careful::save(&mut transaction, name, &self.progress.parked).await?;
        careful::save(&mut transaction, name, &progress.parked).await?;
        transaction.commit().await?;
        self.progress.parked.append(&mut progress.parked);
        self.progress.records = progress.records;
        Ok(())
    }
}

/// Something of each table.
fn all(tables: &[&str], form: &dyn Fn(&str) -> String, between: &str) -> String {
    tables.iter().map(|table| form(table)).collect::<Vec<_>>().join(between)
}

/// Puts the tables of a schema in the place of the live ones, which are dropped.
async fn exchange(connection: &mut PgConnection, schema: &str, tables: &[&str]) -> Result<(), sqlx::Error> {
    let views = definition::views(connection, tables).await?;
    // Views first, as their readers lock them.
    let old = all(tables, &|table| format!("{LIVE}.{table}"), ", ");
    let names = views.iter().map(|view| view.name.as_str()).chain([old.as_str()]);
    let alone = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", names.collect::<Vec<_>>().join(", "));
    run(connection, format!("SET LOCAL lock_timeout TO '{READERS}'; {alone}")).await?;
    let aside = format!("{schema}_old");
    let out = all(tables, &|table| format!("ALTER TABLE {LIVE}.{table} SET SCHEMA {aside}"), "; ");
    let moves = all(tables, &|table| format!("ALTER TABLE {schema}.{table} SET SCHEMA {LIVE}"), "; ");
    run(connection, format!("CREATE SCHEMA {aside}; {out}; {moves}")).await?;
    for view in views {
        run(connection, view.replace()).await?;
    }
    // Not in cascade: a view that came a moment ago is nothing to lose in silence.
    let drop = all(tables, &|table| format!("{aside}.{table}"), ", ");
    run(connection, format!("DROP TABLE {drop}; DROP SCHEMA {aside}")).await
}

impl Progress {
    async fn apply(
        &mut self,
        connection: &mut PgConnection,
        projection: &dyn Projection,
        place: usize,
        page: Vec<Arc<Record>>,
    ) -> Result<(), RebuildError> {
        let Some(last) = page.last().map(|record| record.place()) else { return Ok(()) };
        let count = page.len() as u64;
        let parked = careful::apply_rest(connection, projection, page, &mut self.parked_keys).await?;
        self.parked.extend(parked);
        self.records += count;
        self.reached[place] = last;
        Ok(())
    }
}

/// The next page of a shard.
async fn read(log: &dyn Backfill, after: Position) -> Result<Vec<Arc<Record>>, BusError> {
    log.read(after.topic, after.shard, after.position, PAGE).await
}

/// A lock that was not to be had, or a deadlock.
fn is_lock_failure(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| ["55P03", "40P01"].contains(&&*code))
}

/// Sets the checkpoints to where the new tables stand.
async fn place(connection: &mut PgConnection, projection: &str, reached: &[Position]) -> Result<(), sqlx::Error> {
    let topics: Vec<i16> = reached.iter().map(|at| at.topic.code()).collect();
    let shards: Vec<i16> = reached.iter().map(|at| smallint(at.shard)).collect();
    let positions: Vec<i64> = reached.iter().map(|at| bigint(at.position)).collect();
    sqlx::query(
        "UPDATE read.checkpoints c SET position = u.position \
           FROM unnest($2::smallint[], $3::smallint[], $4::bigint[]) AS u(topic, shard, position) \
          WHERE c.projection = $1 AND c.topic = u.topic AND c.shard = u.shard",
    )
    .bind(projection)
    .bind(topics)
    .bind(shards)
    .bind(positions)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests;
