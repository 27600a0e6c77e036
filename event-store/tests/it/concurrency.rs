//! Many at once: writers, stores, and others who use the database for their own ends.

use domain::kernel::LogTopic;
use event_store::{CommittedBatch, Context, EventStore, ExecuteError, Options};
use futures::future::join_all;
use sqlx::Executor;
use testkit::{Database, eventually};
use uuid::Uuid;

use crate::history::History;
use crate::model::{Membership, No, OpenRoom, TakeName, Write};
use crate::{BOUND, insist, open, open_with, store};

/// Writers of several stores on some rooms; every one's notes, as told.
async fn write_at_once(stores: &[EventStore], rooms: &[Uuid], writers: usize, notes: usize) -> usize {
    for room in rooms {
        insist(&stores[0], OpenRoom(*room)).await.unwrap();
    }
    let writing = (0..writers).map(|writer| {
        let store = stores[writer % stores.len()].clone();
        let rooms = rooms.to_vec();
        tokio::spawn(async move {
            let mut told = Vec::new();
            let mut last = std::collections::HashMap::new();
            for n in 0..notes {
                let write = Write::new(rooms[(writer + n) % rooms.len()], format!("{writer}/{n}"));
                let recorded = insist(&store, write.clone()).await.unwrap().output;
                let before = last.insert(write.room, recorded.seq);
                assert!(before < Some(recorded.seq), "one writer's notes come in order");
                told.push((write.note, recorded));
            }
            told
        })
    });
    let told: Vec<_> = join_all(writing).await.into_iter().flat_map(Result::unwrap).collect();
    let history = History::read(&stores[0]).await;
    assert_eq!(told.len(), history.notes());
    history.has(told);
    history.events.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_on_one_key() {
    let (_database, store) = store().await;
    assert_eq!(write_at_once(&[store], &[Uuid::now_v7()], 40, 25).await, 1_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_on_many_keys_and_lanes() {
    let database = Database::new().await;
    let store = open_with(database.options(), Options { lanes: 3, ..Options::default() }).await;
    let rooms: Vec<_> = (0..60).map(|_| Uuid::now_v7()).collect();
    assert_eq!(write_at_once(&[store], &rooms, 40, 25).await, 1_060);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_stores_on_the_same_keys() {
    let database = Database::new().await;
    let stores =
        join_all([1, 1, 2].map(|lanes| open_with(database.options(), Options { lanes, ..Options::default() }))).await;
    let followers: Vec<_> = stores.iter().map(EventStore::committed).collect();
    let rooms: Vec<_> = (0..6).map(|_| Uuid::now_v7()).collect();
    write_at_once(&stores, &rooms, 24, 20).await;
    for mut follower in followers {
        let mut last = std::collections::HashMap::new();
        while let Some(CommittedBatch::Events(events)) = follower.try_next() {
            for event in &*events {
                let before = last.insert((event.topic, event.shard), event.position);
                assert!(before < Some(event.position), "what is handed on comes in order");
            }
        }
        assert!(!last.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_any_bound_and_caches_of_any_size_come_to_the_same() {
    for (batch_commands, batch_bytes, cached) in [(1, 1 << 20, 8), (7, 10, 0), (512, 0, 1)] {
        let database = Database::new().await;
        let options = Options {
            batch_commands,
            batch_bytes,
            cached_streams: cached,
            cached_bytes: cached * 20,
            cached_heads: cached,
            ..Options::default()
        };
        let store = open_with(database.options(), options).await;
        let rooms: Vec<_> = (0..20).map(|_| Uuid::now_v7()).collect();
        write_at_once(&[store], &rooms, 30, 5).await;
    }
}

#[tokio::test]
async fn what_one_store_acknowledged_every_other_goes_by() {
    let database = Database::new().await;
    let (one, other) = (open(&database).await, open(&database).await);
    let (room, who) = (Uuid::now_v7(), Uuid::now_v7());
    one.execute(OpenRoom(room), Context::default()).await.unwrap();
    for round in 0..30 {
        let write = || Write { by: Some(who), ..Write::new(room, "as a member") };
        // The other store has the room in its cache, as it was; a refusal by that would be wrong.
        let outside = other.execute(write(), Context::default()).await;
        assert!(matches!(outside, Err(ExecuteError::Refused(No::NotThere))), "round {round}");
        one.execute(Membership { room, who, present: true }, Context::default()).await.unwrap();
        other.execute(write(), Context::default()).await.unwrap();
        one.execute(Membership { room, who, present: false }, Context::default()).await.unwrap();
    }
    History::read(&one).await;
}

#[tokio::test]
async fn a_store_that_is_far_behind_goes_on_where_the_log_is() {
    let database = Database::new().await;
    let (one, other) = (open(&database).await, open(&database).await);
    let (room, who) = (Uuid::now_v7(), Uuid::now_v7());
    one.execute(OpenRoom(room), Context::default()).await.unwrap();
    other.execute(Write::new(room, "early"), Context::default()).await.unwrap();
    join_all((0..2_200).map(|n| one.execute(Write::new(room, n.to_string()), Context::default()))).await;
    one.execute(Membership { room, who, present: true }, Context::default()).await.unwrap();
    let late = Write { by: Some(who), ..Write::new(room, "late") };
    let late = other.execute(late, Context::default()).await.unwrap();
    assert_eq!(late.output.seq, Some(2_204));
    History::read(&one).await;
}

#[tokio::test]
async fn of_many_who_want_one_name_one_gets_it() {
    let database = Database::new().await;
    let stores =
        join_all([(); 3].map(|()| open_with(database.options(), Options { lanes: 2, ..Options::default() }))).await;
    for round in 0..5 {
        let taking = (0..24).map(|n| {
            let command = TakeName { person: Uuid::now_v7(), name: format!("name {round}"), blindly: false };
            stores[n % stores.len()].execute(command, Context::default())
        });
        let (won, lost): (Vec<_>, Vec<_>) = join_all(taking).await.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        assert!(lost.into_iter().all(|lost| matches!(lost, Err(ExecuteError::Refused(No::Taken)))));
    }
    History::read(&stores[0]).await;
}

#[tokio::test]
async fn more_than_may_wait_is_turned_away() {
    let database = Database::new().await;
    let store = open_with(database.options(), Options { queue: 2, lanes: 1, ..Options::default() }).await;
    let room = Uuid::now_v7();
    store.execute(OpenRoom(room), Context::default()).await.unwrap();
    let mut blocker = database.pool().begin().await.unwrap();
    blocker.execute("SELECT 1 FROM log.shards FOR UPDATE").await.unwrap();
    let first = tokio::spawn({
        let store = store.clone();
        async move { store.execute(Write::new(room, "first"), Context::default()).await }
    });
    eventually("the lane waits for the lock", BOUND, async || {
        let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_locks WHERE NOT granted")
            .fetch_one(database.pool())
            .await
            .unwrap();
        waiting > 0
    })
    .await;
    let writing = join_all((0..5).map(|n| store.execute(Write::new(room, n.to_string()), Context::default())));
    let (written, ()) = tokio::join!(writing, async { blocker.rollback().await.unwrap() });
    let busy = written.iter().filter(|written| matches!(written, Err(ExecuteError::Busy))).count();
    let done = written.iter().filter(|written| written.is_ok()).count();
    assert_eq!((busy, done), (3, 2));
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_long_transaction_elsewhere_delays_no_one() {
    let (database, store) = store().await;
    let room = Uuid::now_v7();
    store.execute(OpenRoom(room), Context::default()).await.unwrap();
    sqlx::query("CREATE TABLE public.elsewhere (n int)").execute(database.pool()).await.unwrap();
    let mut long = database.pool().acquire().await.unwrap();
    long.execute(
        "BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO public.elsewhere VALUES (1); SELECT * FROM log.shards",
    )
    .await
    .unwrap();
    let shard = store.log().shard_of(room);
    for n in 2..200_u64 {
        let written = store.execute(Write::new(room, "on"), Context::default()).await.unwrap();
        assert_eq!(written.position.position, n);
        // No wait: it is there at once.
        let heads = store.log().heads().await.unwrap();
        assert!(heads.iter().any(|head| (head.topic, head.shard, head.head) == (LogTopic::Conversations, shard, n)));
        assert_eq!(store.log().read(LogTopic::Conversations, shard, n - 1, 10).await.unwrap().len(), 1);
    }
    long.execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn a_closed_store_answers_what_waited() {
    let (_database, store) = store().await;
    let room = Uuid::now_v7();
    store.execute(OpenRoom(room), Context::default()).await.unwrap();
    let writing = join_all((0..50).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { store.execute(Write::new(room, n.to_string()), Context::default()).await })
    }));
    let (written, ()) = tokio::join!(writing, store.close());
    let done = written
        .into_iter()
        .filter(|written| match written.as_ref().unwrap() {
            Ok(_) => true,
            Err(ExecuteError::Closed) => false,
            Err(other) => panic!("{other}"),
        })
        .count();
    assert_eq!(History::read(&store).await.notes(), done);
}
