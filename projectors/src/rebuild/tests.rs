//! Projections are filled anew while traffic goes on.

use std::collections::BTreeSet;

use async_trait::async_trait;
use schemas::{Role, Topic};
use testkit::{Database, eventually};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::testing::{
    Member, MemoryLog, Room, SHARDS, World, ann, applied_all, ben, cleo, profile, registered, rows, session,
};

const BOUND: Duration = Duration::from_mins(1);

/// Live servers: their runners, and people who talk until told to stop.
struct Live {
    world: Arc<World>,
    database: Database,
    members: Vec<Member>,
    talk: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Live {
    async fn new(messages: usize) -> Self {
        let (world, database) = (Arc::new(World::new()), Database::new().await);
        let members = vec![Member::start(&world, database.pool())];
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
        let live = Self { world, database, members, talk: Some((enough, task)) };
        live.caught_up().await;
        live
    }

    async fn caught_up(&self) {
        applied_all(&self.world, self.database.pool()).await;
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
                for projection in PROJECTIONS.iter().filter(|projection| projection.describe().topics.contains(&topic))
                {
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

/// Of tables, indexes, constraints and views, with who may read the views and what is said of them.
async fn definitions(database: &Database) -> BTreeSet<String> {
    let query = "SELECT indexname || ' ' || indexdef FROM pg_indexes WHERE schemaname = 'read' \
                 UNION ALL \
                 SELECT c.relname || ' ' || coalesce(c.reloptions::text, '') || coalesce(string_agg( \
                     attname || format_type(atttypid, atttypmod) || attnotnull, ',' ORDER BY attnum), '') \
                   FROM pg_class c JOIN pg_attribute ON attrelid = c.oid AND attnum > 0 \
                  WHERE relnamespace = 'read'::regnamespace GROUP BY c.oid \
                 UNION ALL \
                 SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint \
                  WHERE connamespace = 'read'::regnamespace \
                 UNION ALL \
                 SELECT concat_ws(' ', oid, oid::regclass, relacl, reloptions, pg_get_viewdef(oid), \
                                  (SELECT string_agg(description, ' ' ORDER BY objsubid) FROM pg_description \
                                    WHERE objoid = c.oid)) \
                   FROM pg_class c WHERE relkind = 'v' AND relnamespace IN ( \
                        SELECT oid FROM pg_namespace WHERE nspname IN ('read', 'elsewhere'))";
    sqlx::query_scalar::<_, String>(query).fetch_all(database.pool()).await.unwrap().into_iter().collect()
}

#[tokio::test]
async fn emptied_read_models_come_back_while_traffic_goes_on() {
    let live = Live::new(4000).await;
    let before = definitions(&live.database).await;
    let tables = crate::list().into_iter().flat_map(|one| one.tables).map(|table| format!("{LIVE}.{table}"));
    let truncate = format!("TRUNCATE {}", tables.collect::<Vec<_>>().join(", "));
    sqlx::raw_sql(AssertSqlSafe(truncate)).execute(live.database.pool()).await.unwrap();
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
async fn views_on_what_is_rebuilt_go_on_and_so_does_what_was_granted_on_them() {
    let live = Live::new(1000).await;
    // Somebody else's too, on the tables of two projections and on a view.
    sqlx::raw_sql(
        "CREATE SCHEMA elsewhere; \
         CREATE VIEW elsewhere.talk WITH (security_barrier = true) AS \
            SELECT name, count(*) AS events FROM read.conversations JOIN read.timeline USING (conversation_id) \
             GROUP BY name; \
         CREATE VIEW elsewhere.messages AS SELECT sum(messages) AS messages FROM read.messages_by_hour; \
         GRANT SELECT ON elsewhere.talk, elsewhere.messages, read.messages_by_hour TO PUBLIC; \
         COMMENT ON VIEW elsewhere.talk IS 'Who talks.'",
    )
    .execute(live.database.pool())
    .await
    .unwrap();
    let before = definitions(&live.database).await;
    // One connection, and so one prepared statement that outlives the tables it was prepared on.
    let mut reader = live.database.pool().acquire().await.unwrap();
    let mut last = (0, 0);
    for name in ["analytics", "timeline", "analytics", "conversations"] {
        rebuild(live.database.pool(), live.log(), SHARDS, name).await.unwrap();
        let seen: (i64, i64) = sqlx::query_as(
            "SELECT (SELECT messages::bigint FROM elsewhere.messages), \
                    (SELECT sum(events)::bigint FROM elsewhere.talk)",
        )
        .fetch_one(&mut *reader)
        .await
        .unwrap();
        assert!(seen.0 >= last.0.max(500) && seen.1 >= last.1.max(500), "{seen:?} after {last:?}");
        last = seen;
    }
    assert_eq!(definitions(&live.database).await, before);
    assert_eq!(schemas(&live.database).await, [""; 0]);
    live.assert_same_as_the_log().await;
}

#[tokio::test]
async fn every_process_goes_on_after_the_swap_though_one_is_stopped() {
    let mut live = Live::new(2000).await;
    live.members.push(Member::start(&live.world, live.database.pool()));
    let shared = "SELECT count(DISTINCT member) FROM state.leases";
    eventually("both have shards", BOUND, async || {
        sqlx::query_scalar::<_, i64>(shared).fetch_one(live.database.pool()).await.unwrap() == 2
    })
    .await;
    // A third one was stopped in a transaction, and nobody knows of it.
    let mut stuck = crate::database::connect_runner(live.database.pool(), "parlance projectors nobody").await.unwrap();
    sqlx::raw_sql("BEGIN; UPDATE read.checkpoints SET position = position + 1 WHERE topic = 1 AND shard = 1")
        .execute(&mut stuck)
        .await
        .unwrap();
    let rebuilt = rebuild(live.database.pool(), live.log(), SHARDS, "all").await.unwrap();
    assert!(rebuilt.iter().all(|one| one.parked == 0));
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
    sqlx::query("INSERT INTO read.parked VALUES ('timeline', 1, 2, 1, $1, 'once'), ('receipts', 1, 2, 1, $1, 'once')")
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
