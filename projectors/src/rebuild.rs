//! Fills a projection anew from the log beside the live one, and puts it in its place, while traffic goes on.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use platform::bus::{Backfill, BusError};
use schemas::Record;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::careful::{self, Parked};
use crate::checkpoints;
use crate::database::{bigint, connect, smallint};
use crate::projection::{ApplyError, Description, Projection};
use crate::registry::PROJECTIONS;
use crate::runner::LIVE;

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
    /// How many records of its topic were read.
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
    /// How far each shard was applied.
    positions: Vec<u64>,
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
        checkpoints::load(&mut connection, about.name, about.topic, shards).await?;
        run(&mut connection, format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}")).await?;
        for table in about.tables {
            copy_definition(&mut connection, &schema, table).await?;
        }
        // Nothing of it counts before the swap, whose commit waits for all before it.
        run(&mut connection, "SET synchronous_commit TO off".to_owned()).await?;
        let progress = Progress { positions: vec![0; usize::from(shards)], ..Progress::default() };
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
        for shard in 0..self.progress.positions.len() {
            let mut page = self.read(shard, self.progress.positions[shard]).await?;
            while let Some(last) = page.last().map(|record| record.position) {
                let more = page.len() == PAGE;
                let (log, topic, number) = (Arc::clone(&self.log), self.about.topic, shard_number(shard));
                let mut transaction = self.connection.begin().await?;
                let applied = self.progress.apply(&mut transaction, self.projection, shard, page);
                // The next page is read while this one is applied.
                let following = async { if more { log.read(topic, number, last, PAGE).await } else { Ok(Vec::new()) } };
                let (applied, following) = tokio::join!(applied, following);
                applied?;
                transaction.commit().await?;
                page = following?;
            }
        }
        Ok(())
    }

    async fn read(&self, shard: usize, after: u64) -> Result<Vec<Arc<Record>>, BusError> {
        self.log.read(self.about.topic, shard_number(shard), after, PAGE).await
    }

    /// Applies the rest while the live projections wait, and puts the new tables in the place of the old.
    async fn swap(&mut self) -> Result<(), RebuildError> {
        let Description { name, topic, tables } = self.about;
        let mut progress = Progress {
            positions: self.progress.positions.clone(),
            records: self.progress.records,
            parked_keys: self.progress.parked_keys.clone(),
            parked: Vec::new(),
        };
        let all = |form: &dyn Fn(&str) -> String, between: &str| {
            tables.iter().map(|table| form(table)).collect::<Vec<_>>().join(between)
        };
        let old = all(&|table| format!("{LIVE}.{table}"), ", ");
        let moves = all(&|table| format!("ALTER TABLE {}.{table} SET SCHEMA {LIVE}", self.schema), "; ");
        let mut transaction = self.connection.begin().await?;
        // Sends autovacuum away, which would outlast our short wait for readers; hinders nobody else.
        let alone = format!("SET LOCAL lock_timeout TO '10s'; LOCK TABLE {old} IN SHARE UPDATE EXCLUSIVE MODE");
        run(&mut transaction, alone).await?;
        // No runner moves a checkpoint from here on, and none holds a table while it waits for that.
        let fence = "SET LOCAL synchronous_commit TO on; LOCK TABLE read.checkpoints IN EXCLUSIVE MODE";
        run(&mut transaction, fence.to_owned()).await?;
        for shard in 0..progress.positions.len() {
            loop {
                let page = self.log.read(topic, shard_number(shard), progress.positions[shard], PAGE).await?;
                let more = page.len() == PAGE;
                progress.apply(&mut transaction, self.projection, shard, page).await?;
                if !more {
                    break;
                }
            }
        }
        let shards = u16::try_from(progress.positions.len()).unwrap_or(u16::MAX);
        let live = checkpoints::load(&mut transaction, name, topic, shards).await?;
        if live.iter().zip(&progress.positions).any(|(live, ours)| live > ours) {
            return Err(RebuildError::Behind(name));
        }
        let swap = format!(
            "SET LOCAL lock_timeout TO '{READERS}'; LOCK TABLE {old} IN ACCESS EXCLUSIVE MODE; DROP TABLE {old}; {moves}"
        );
        run(&mut transaction, swap).await?;
        place(&mut transaction, name, topic.code(), &progress.positions).await?;
        sqlx::query("DELETE FROM read.parked WHERE projection = $1").bind(name).execute(&mut *transaction).await?;
        careful::save(&mut transaction, name, topic, &self.progress.parked).await?;
        careful::save(&mut transaction, name, topic, &progress.parked).await?;
        transaction.commit().await?;
        self.progress.parked.append(&mut progress.parked);
        self.progress.records = progress.records;
        Ok(())
    }
}

impl Progress {
    async fn apply(
        &mut self,
        connection: &mut PgConnection,
        projection: &dyn Projection,
        shard: usize,
        page: Vec<Arc<Record>>,
    ) -> Result<(), RebuildError> {
        let Some(last) = page.last().map(|record| record.position) else { return Ok(()) };
        let count = page.len() as u64;
        let parked = careful::apply_rest(connection, projection, page, &mut self.parked_keys).await?;
        self.parked.extend(parked);
        self.records += count;
        self.positions[shard] = last;
        Ok(())
    }
}

fn shard_number(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}

/// A lock that was not to be had, or a deadlock.
fn is_lock_failure(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| ["55P03", "40P01"].contains(&&*code))
}

/// Sets the checkpoints to where the new tables stand.
async fn place(
    connection: &mut PgConnection,
    projection: &str,
    topic: i16,
    positions: &[u64],
) -> Result<(), sqlx::Error> {
    let shards: Vec<i16> = (0..positions.len()).map(|shard| smallint(shard_number(shard))).collect();
    let positions: Vec<i64> = positions.iter().copied().map(bigint).collect();
    sqlx::query(
        "UPDATE read.checkpoints c SET position = u.position \
           FROM unnest($3::smallint[], $4::bigint[]) AS u(shard, position) \
          WHERE c.projection = $1 AND c.topic = $2 AND c.shard = u.shard",
    )
    .bind(projection)
    .bind(topic)
    .bind(shards)
    .bind(positions)
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes an empty table like the live one: its columns, options, indexes and constraints, all under the same names.
async fn copy_definition(connection: &mut PgConnection, schema: &str, table: &str) -> Result<(), sqlx::Error> {
    let options: Option<String> =
        sqlx::query_scalar("SELECT array_to_string(reloptions, ', ') FROM pg_class WHERE oid = to_regclass($1)")
            .bind(format!("{LIVE}.{table}"))
            .fetch_one(&mut *connection)
            .await?;
    let options = options.map(|options| format!(" WITH ({options})")).unwrap_or_default();
    // LIKE would name the indexes itself, and later migrations could not find them.
    let like = format!("LIKE {LIVE}.{table} INCLUDING ALL EXCLUDING INDEXES");
    run(connection, format!("CREATE TABLE {schema}.{table} ({like}){options}")).await?;
    let indexes: Vec<(String, String, Option<String>)> = sqlx::query_as(
        "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid), \
                CASE c.contype WHEN 'p' THEN 'PRIMARY KEY' WHEN 'u' THEN 'UNIQUE' END \
           FROM pg_index i LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.contype IN ('p', 'u') \
          WHERE i.indrelid = to_regclass($1) ORDER BY i.indexrelid",
    )
    .bind(format!("{LIVE}.{table}"))
    .fetch_all(&mut *connection)
    .await?;
    for (name, definition, constraint) in indexes {
        let name = name.rsplit('.').next().unwrap_or(&name);
        let definition = definition.replace(&format!(" ON {LIVE}.{table} "), &format!(" ON {schema}.{table} "));
        run(connection, definition).await?;
        if let Some(constraint) = constraint {
            let add = format!("ALTER TABLE {schema}.{table} ADD CONSTRAINT {name} {constraint} USING INDEX {name}");
            run(connection, add).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use async_trait::async_trait;
    use platform::applied::AppliedPositions;
    use platform::bus::Bus;
    use schemas::{Role, Topic};
    use testkit::{Database, eventually};
    use tokio::sync::Semaphore;
    use tokio::task::JoinHandle;
    use tokio_util::sync::{CancellationToken, DropGuard};

    use super::*;
    use crate::testing::{MemoryLog, Room, SHARDS, World, ann, ben, cleo, profile, registered, rows, session};

    const BOUND: Duration = Duration::from_secs(30);

    /// A live server: a runner, and people who talk until told to stop.
    struct Live {
        world: Arc<World>,
        database: Database,
        applied: AppliedPositions,
        _stop: DropGuard,
        talk: Option<(CancellationToken, JoinHandle<()>)>,
    }

    impl Live {
        async fn new(messages: usize) -> Self {
            let (world, database) = (Arc::new(World::new()), Database::new().await);
            let (applied, shutdown) = (AppliedPositions::default(), CancellationToken::new());
            let bus: Arc<dyn Bus> = Arc::clone(&world.bus) as _;
            tokio::spawn(crate::run(database.pool().clone(), bus, applied.clone(), shutdown.clone()));
            for (user, name) in [(1, "ann"), (2, "ben"), (3, "cleo")] {
                world.append(registered(user, name)).await;
                world.append(session(user, user + 10, schemas::Event::SessionStarted)).await;
            }
            let mut rooms: Vec<Room> = (20..26).map(Room::new).collect();
            for room in &mut rooms {
                world.append(room.created(&[(ann(), Role::Owner), (ben(), Role::Member)])).await;
            }
            for number in 0..messages {
                talk(&world, &mut rooms, number).await;
            }
            let enough = CancellationToken::new();
            let (stopped, talking) = (enough.clone(), Arc::clone(&world));
            let task = tokio::spawn(async move {
                for number in messages.. {
                    if stopped.is_cancelled() {
                        break;
                    }
                    talk(&talking, &mut rooms, number).await;
                    tokio::time::sleep(Duration::from_micros(300)).await;
                }
            });
            let live = Self { world, database, applied, _stop: shutdown.drop_guard(), talk: Some((enough, task)) };
            live.caught_up().await;
            live
        }

        async fn caught_up(&self) {
            assert!(self.applied.reached(&self.world.log.heads(), BOUND).await, "not applied in time");
        }

        fn log(&self) -> Arc<dyn Backfill> {
            Arc::clone(&self.world.log) as _
        }

        /// Stops the talk, and compares the live rows with those of the same log applied at once elsewhere.
        async fn assert_same_as_the_log(mut self) {
            if let Some((enough, task)) = self.talk.take() {
                enough.cancel();
                task.await.unwrap();
            }
            self.caught_up().await;
            let other = Database::new().await;
            let mut connection = connect(other.pool(), LIVE).await.unwrap();
            for topic in Topic::ALL {
                for shard in 0..SHARDS {
                    let all = self.world.log.read(topic, shard, 0, usize::MAX).await.unwrap();
                    for projection in PROJECTIONS.iter().filter(|projection| projection.describe().topic == topic) {
                        projection.apply(&mut connection, &all).await.unwrap();
                    }
                }
            }
            let expected = rows(&mut connection).await;
            let live = rows(&mut connect(self.database.pool(), LIVE).await.unwrap()).await;
            let different: Vec<_> = expected.symmetric_difference(&live).take(5).collect();
            assert_eq!(different, Vec::<&String>::new(), "of {} rows", expected.len());
        }
    }

    /// What comes next, of all kinds.
    async fn talk(world: &World, rooms: &mut [Room], number: usize) {
        let count = rooms.len();
        let room = &mut rooms[number % count];
        match number % 50 {
            49 => drop(world.append(profile(1, &format!("name {number}"))).await),
            20 if number % 100 == 20 => {
                for room in rooms {
                    world.append(room.joined(cleo(), Role::Member)).await;
                }
            }
            20 => {
                for room in rooms {
                    world.append(room.left(cleo())).await;
                }
            }
            n if n % 10 == 5 => drop(world.append(room.delivered(ben(), room.seq, room.seq / 2)).await),
            _ => drop(world.append(room.said(ann())).await),
        }
    }

    async fn schemas(database: &Database) -> Vec<String> {
        let query = "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'rebuild%' ORDER BY 1";
        sqlx::query_scalar(query).fetch_all(database.pool()).await.unwrap()
    }

    async fn definitions(database: &Database) -> BTreeSet<String> {
        let query = "SELECT indexname || ' ' || indexdef FROM pg_indexes WHERE schemaname = 'read' \
                     UNION ALL \
                     SELECT c.relname || ' ' || coalesce(c.reloptions::text, '') || coalesce(string_agg( \
                         attname || format_type(atttypid, atttypmod) || attnotnull, ',' ORDER BY attnum), '') \
                       FROM pg_class c JOIN pg_attribute ON attrelid = c.oid AND attnum > 0 \
                      WHERE relnamespace = 'read'::regnamespace GROUP BY c.oid \
                     UNION ALL \
                     SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint \
                      WHERE connamespace = 'read'::regnamespace";
        sqlx::query_scalar::<_, String>(query).fetch_all(database.pool()).await.unwrap().into_iter().collect()
    }

    #[tokio::test]
    async fn emptied_read_models_come_back_while_traffic_goes_on() {
        let live = Live::new(4000).await;
        let before = definitions(&live.database).await;
        sqlx::query(
            "TRUNCATE read.users, read.sessions, read.conversations, read.members, read.receipts, read.timeline",
        )
        .execute(live.database.pool())
        .await
        .unwrap();
        let rebuilt = rebuild(live.database.pool(), live.log(), SHARDS, "all").await.unwrap();
        assert_eq!(
            rebuilt.iter().map(|one| one.name).collect::<Vec<_>>(),
            crate::list().iter().map(|p| p.name).collect::<Vec<_>>()
        );
        assert!(rebuilt.iter().all(|one| one.parked == 0));
        assert_eq!(definitions(&live.database).await, before);
        assert_eq!(schemas(&live.database).await, Vec::<String>::new());
        live.assert_same_as_the_log().await;
    }

    #[tokio::test]
    async fn readers_see_all_of_the_old_or_all_of_the_new() {
        let live = Live::new(2000).await;
        let pool = live.database.pool().clone();
        let done = CancellationToken::new();
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (pool, done) = (pool.clone(), done.clone());
                tokio::spawn(async move {
                    // One connection, and so one prepared statement that outlives the tables it was prepared on.
                    let mut connection = pool.acquire().await.unwrap();
                    let (mut last, mut reads) = (0, 0);
                    while !done.is_cancelled() {
                        let (messages, heads): (i64, i64) = sqlx::query_as(
                            "SELECT (SELECT count(*) FROM read.timeline), \
                                    (SELECT sum(last_seq)::bigint FROM read.conversations JOIN read.members \
                                       USING (conversation_id) WHERE user_id = '00000000-0000-0000-0000-000000000001')",
                        )
                        .fetch_one(&mut *connection)
                        .await
                        .unwrap();
                        assert!(messages >= last, "{messages} after {last}");
                        assert!(heads > 0);
                        (last, reads) = (messages, reads + 1);
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    reads
                })
            })
            .collect();
        for name in ["timeline", "conversations", "timeline", "receipts"] {
            rebuild(&pool, live.log(), SHARDS, name).await.unwrap();
        }
        done.cancel();
        for reader in readers {
            assert!(reader.await.unwrap() > 5);
        }
        live.assert_same_as_the_log().await;
    }

    /// A log that stands still after so many pages.
    struct Stuck {
        log: Arc<MemoryLog>,
        pages: Semaphore,
    }

    #[async_trait]
    impl Backfill for Stuck {
        async fn read(&self, topic: Topic, shard: u16, after: u64, limit: usize) -> Result<Vec<Arc<Record>>, BusError> {
            self.pages.acquire().await.unwrap().forget();
            self.log.read(topic, shard, after, limit).await
        }
    }

    #[tokio::test]
    async fn one_at_a_time_and_one_that_was_killed_leaves_no_harm() {
        let live = Live::new(500).await;
        let pool = live.database.pool().clone();
        let stuck = Arc::new(Stuck { log: Arc::clone(&live.world.log), pages: Semaphore::new(2) });
        let (killed_pool, log) = (pool.clone(), Arc::clone(&stuck));
        let first = tokio::spawn(async move { rebuild(&killed_pool, log, SHARDS, "timeline").await });
        eventually("the first has begun", BOUND, async || stuck.pages.available_permits() == 0).await;
        let second = rebuild(&pool, live.log(), SHARDS, "timeline").await;
        assert!(matches!(second, Err(RebuildError::Busy("timeline"))));
        // A server that starts meanwhile leaves it alone.
        sweep(&pool).await.unwrap();
        assert_eq!(schemas(&live.database).await, ["rebuild_timeline"]);
        first.abort();
        eventually("its connection is gone", BOUND, async || {
            sweep(&pool).await.unwrap();
            schemas(&live.database).await.is_empty()
        })
        .await;
        rebuild(&pool, live.log(), SHARDS, "timeline").await.unwrap();
        assert!(matches!(rebuild(&pool, live.log(), SHARDS, "nothing").await, Err(RebuildError::Unknown(_))));
        live.assert_same_as_the_log().await;
    }

    #[tokio::test]
    async fn what_is_parked_is_tried_again() {
        let (world, database) = (World::new(), Database::new().await);
        let mut room = Room::new(5);
        world.append(room.created(&[(ann(), Role::Owner)])).await;
        world.append(room.said_with(ann(), |message| message.content = Some("\0".into()))).await;
        let mut sound = Room::new(6);
        world.append(sound.created(&[(ann(), Role::Owner)])).await;
        // As if parked by an earlier version.
        sqlx::query(
            "INSERT INTO read.parked VALUES ('timeline', 1, 2, 1, $1, 'once'), ('receipts', 1, 2, 1, $1, 'once')",
        )
        .bind(sound.id)
        .execute(database.pool())
        .await
        .unwrap();
        let rebuilt = rebuild(database.pool(), Arc::clone(&world.log) as _, SHARDS, "timeline").await.unwrap();
        assert_eq!((rebuilt[0].records, rebuilt[0].parked), (3, 1));
        let parked: Vec<(String, Uuid)> = sqlx::query_as("SELECT projection, key FROM read.parked ORDER BY projection")
            .fetch_all(database.pool())
            .await
            .unwrap();
        assert_eq!(parked, [("receipts".to_owned(), sound.id), ("timeline".to_owned(), room.id)]);
    }
}
