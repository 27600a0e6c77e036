//! What a forger may do to the log, and what `verify` says to it.

use domain::kernel::LogTopic;
use event_store::{Context, EventStore, Fault, Options, ShardChain, genesis};
use futures::future::join_all;
use sqlx::{AssertSqlSafe, Executor};
use testkit::Database;
use uuid::Uuid;

use crate::model::{OpenRoom, Write};
use crate::open_with;

/// Rooms enough for a few shards, and their notes.
async fn log_of(database: &Database, notes: usize) -> EventStore {
    let store = open_with(database.options(), Options { shards: 4, lanes: 2, ..Options::default() }).await;
    let rooms: Vec<_> = (0..8).map(|_| Uuid::now_v7()).collect();
    join_all(rooms.iter().map(|room| store.execute(OpenRoom(*room), Context::default()))).await;
    let context = Context { correlation_id: Some("a request".into()), ..Context::default() };
    for room in &rooms {
        join_all((0..notes).map(|n| store.execute(Write::new(*room, format!("note {n}")), context.clone()))).await;
    }
    store
}

async fn forge(store: &EventStore, sql: &str, (topic, shard): (LogTopic, u16)) {
    let sql = sql.replace("WHERE ME", &format!("WHERE topic = {} AND shard = {shard} AND position", topic.code()));
    let sql = sql.replace("OF ME", &format!("WHERE topic = {} AND shard = {shard}", topic.code()));
    let mut transaction = store.log().pool().begin().await.unwrap();
    transaction.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn every_forgery_is_found_where_it_begins() {
    let forgeries = [
        ("UPDATE log.events SET payload = '{\"by\":\"x\",\"text\":\"forged\"}' WHERE ME = 5", Fault::Changed(5)),
        ("UPDATE log.events SET payload = (payload::text || ' ')::json WHERE ME = 5", Fault::Changed(5)),
        ("UPDATE log.events SET at = at + interval '1 microsecond' WHERE ME = 5", Fault::Changed(5)),
        ("UPDATE log.events SET at = 'infinity' WHERE ME = 5", Fault::Changed(5)),
        ("UPDATE log.events SET metadata = NULL WHERE ME = 8", Fault::Changed(8)),
        ("UPDATE log.events SET hash = '\\x00' WHERE ME = 5", Fault::Changed(5)),
        ("UPDATE log.events SET event_id = gen_random_uuid() WHERE ME = 1", Fault::Changed(1)),
        ("DELETE FROM log.events WHERE ME = 5", Fault::Missing(5)),
        ("DELETE FROM log.events WHERE ME = 1", Fault::Missing(1)),
        ("DELETE FROM log.events OF ME", Fault::Missing(1)),
        // Taken out, and the gap closed.
        (
            "DELETE FROM log.events WHERE ME = 5; UPDATE log.events SET position = -position WHERE ME > 5;
             UPDATE log.events SET position = -position - 1 WHERE ME < 0; UPDATE log.shards SET head = head - 1 OF ME",
            Fault::Changed(5),
        ),
        // Two that changed places.
        (
            "UPDATE log.events SET position = -6 WHERE ME = 5; UPDATE log.events SET position = 5 WHERE ME = 6;
             UPDATE log.events SET position = 6 WHERE ME = -6",
            Fault::Changed(5),
        ),
        // The last cut off, without and with its head.
        ("DELETE FROM log.events WHERE ME = (SELECT head FROM log.shards OF ME)", Fault::Missing(u64::MAX)),
        (
            "DELETE FROM log.events WHERE ME = (SELECT head FROM log.shards OF ME);
             UPDATE log.shards SET head = head - 1 OF ME",
            Fault::Head(u64::MAX - 1),
        ),
        // Put in: at the end.
        (
            "INSERT INTO log.events SELECT topic, shard, position + 1, key, seq + 1000, aggregate_type, gen_random_uuid(), 1,
                    gen_random_uuid(), event_type, event_version, at, payload, metadata, hash
               FROM log.events WHERE ME = (SELECT head FROM log.shards OF ME)",
            Fault::Beyond(u64::MAX),
        ),
        // Head set back alone.
        ("UPDATE log.shards SET head = head - 1 OF ME", Fault::Beyond(u64::MAX - 1)),
        ("UPDATE log.shards SET chain = '\\x0000000000000000000000000000000000000000000000000000000000000000' OF ME",
            Fault::Head(u64::MAX)),
        ("DELETE FROM log.shards OF ME", Fault::Head(0)),
    ];
    let database = Database::new().await;
    let store = log_of(&database, 10).await;
    let tables = "CREATE TABLE public.events AS TABLE log.events; CREATE TABLE public.shards AS TABLE log.shards";
    database.pool().execute(sqlx::raw_sql(tables)).await.unwrap();
    for (sql, fault) in forgeries {
        let restore = "TRUNCATE log.events, log.shards; INSERT INTO log.shards TABLE public.shards;
                       INSERT INTO log.events TABLE public.events";
        database.pool().execute(sqlx::raw_sql(restore)).await.unwrap();
        assert!(store.log().verify().await.unwrap().is_sound());
        let heads = store.log().heads().await.unwrap();
        let victim = heads.iter().max_by_key(|head| head.head).unwrap();
        forge(&store, sql, (victim.topic, victim.shard)).await;
        // Faults at the end are named from the end.
        let fault = match fault {
            Fault::Missing(u64::MAX) => Fault::Missing(victim.head),
            Fault::Head(u64::MAX) => Fault::Head(victim.head),
            Fault::Head(position) if position > 0 => Fault::Head(victim.head - 1),
            Fault::Beyond(u64::MAX) => Fault::Beyond(victim.head + 1),
            Fault::Beyond(_) => Fault::Beyond(victim.head),
            other => other,
        };
        for verification in [store.log().verify().await.unwrap(), store.log().verify_within(0).await.unwrap()] {
            assert!(!verification.is_sound());
            for shard in verification.shards {
                let expected = ((shard.topic, shard.shard) == (victim.topic, victim.shard)).then_some(fault);
                assert_eq!(shard.fault, expected, "{sql}");
            }
        }
    }
}

#[tokio::test]
async fn an_event_moved_to_another_shard_is_missed_here_and_strange_there() {
    let database = Database::new().await;
    let store = log_of(&database, 10).await;
    let heads = store.log().heads().await.unwrap();
    let from = heads.iter().max_by_key(|head| head.head).unwrap();
    let to = heads.iter().find(|head| head.topic == from.topic && head.shard != from.shard).unwrap();
    let sql = format!("UPDATE log.events SET shard = {}, position = {} WHERE ME = 3", to.shard, to.head + 1);
    forge(&store, &sql, (from.topic, from.shard)).await;
    let verification = store.log().verify().await.unwrap();
    let faults: Vec<_> = verification.shards.iter().filter_map(|shard| Some((shard.shard, shard.fault?))).collect();
    let mut expected = [(from.shard, Fault::Missing(3)), (to.shard, Fault::Beyond(to.head + 1))];
    expected.sort_by_key(|(shard, _)| *shard);
    assert_eq!(faults, expected);

    let stray = format!("UPDATE log.events SET shard = 99 WHERE topic = {} AND shard = {}", to.topic.code(), to.shard);
    sqlx::query(AssertSqlSafe(stray)).execute(database.pool()).await.unwrap();
    assert_eq!(store.log().verify().await.unwrap().strays, to.head + 1);
}

#[tokio::test]
async fn where_rows_lie_on_disk_does_not_matter() {
    let database = Database::new().await;
    let store = log_of(&database, 20).await;
    // Every row written anew, the last first: none lies behind its predecessor.
    database
        .pool()
        .execute(
            "DO $$ DECLARE e record; BEGIN
               FOR e IN SELECT topic, shard, position FROM log.events ORDER BY position DESC LOOP
                 UPDATE log.events SET hash = hash
                  WHERE topic = e.topic AND shard = e.shard AND position = e.position;
               END LOOP;
             END $$",
        )
        .await
        .unwrap();
    for most_waiting_bytes in [0, 2_000, usize::MAX] {
        let verification = store.log().verify_within(most_waiting_bytes).await.unwrap();
        assert!(verification.is_sound());
        assert_eq!(verification.events(), 168);
    }
}

#[tokio::test]
async fn what_is_known_from_elsewhere_is_compared() {
    let database = Database::new().await;
    let store = log_of(&database, 10).await;
    let log = store.log();
    let claims = log.claims().await.unwrap();
    let victim = *claims.iter().max_by_key(|claim| claim.position).unwrap();
    assert_eq!(log.contradictions(&claims).await.unwrap(), []);
    // Of the hashes on the way, and of those beyond the end.
    let from = ShardChain { position: 0, chain: genesis(victim.topic, victim.shard), ..victim };
    let extension = log.extend(&[(from, victim.position)]).await.unwrap().remove(0);
    assert_eq!((extension.end(), extension.broken), (victim, None));
    let known = |position: u64| {
        let chain = extension.hashes[usize::try_from(position).unwrap() - 1];
        ShardChain { position, chain, ..victim }
    };
    let [other, beyond] =
        [ShardChain { chain: [7; 32], ..known(4) }, ShardChain { position: victim.position + 1, ..victim }];
    let mixed = [known(2), other, ShardChain { chain: [7; 32], ..from }, known(5), beyond];
    assert_eq!(log.contradictions(&mixed).await.unwrap(), [other, beyond]);
    // From the middle, and to where nothing is.
    let rest = log.extend(&[(known(3), victim.position)]).await.unwrap().remove(0);
    assert_eq!((rest.end(), rest.hashes.len() as u64), (victim, victim.position - 3));
    let beyond = log.extend(&[(known(3), victim.position + 2)]).await.unwrap().remove(0);
    assert_eq!(beyond.broken, Some(victim.position + 1));
    let forged = log.extend(&[(ShardChain { chain: [7; 32], ..known(3) }, 5)]).await.unwrap().remove(0);
    assert_eq!((forged.broken, forged.hashes.len()), (Some(4), 0));
    let stored = log.stored_hashes(victim.topic, victim.shard, 2, 4).await.unwrap();
    assert_eq!(stored, [(3, known(3).chain.to_vec()), (4, known(4).chain.to_vec())]);
}
