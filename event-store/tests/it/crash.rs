//! Connections that die at any moment: nothing acknowledged is lost, nothing is there twice, no number is left out.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use event_store::{Context, EventStore, ExecuteError, Options, Recorded};
use futures::future::join_all;
use sqlx::postgres::PgConnectOptions;
use testkit::{Database, Fault, FaultProxy, eventually};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::history::History;
use crate::model::{Membership, OpenRoom, Write};
use crate::{BOUND, insist, open, open_with};

/// A store that comes to its database by a breakable road.
async fn behind_proxy(database: &Database, options: Options) -> (FaultProxy, EventStore) {
    let folder: PathBuf = database.options().get_socket().expect("the tests' server has a Unix socket").clone();
    let proxy = FaultProxy::start(&folder).unwrap();
    let connect: PgConnectOptions = database.options().socket(proxy.folder());
    let store = open_with(connect, options).await;
    (proxy, store)
}

fn impatient() -> Options {
    Options {
        lanes: 1,
        connect_timeout: Duration::from_millis(500),
        statement_timeout: Duration::from_millis(400),
        resolve_timeout: Duration::from_secs(2),
        ..Options::default()
    }
}

/// A few notes at once, each insisted on.
async fn write(store: &EventStore, room: Uuid, notes: usize) -> Vec<(Uuid, Recorded)> {
    let writes: Vec<_> = (0..notes).map(|n| Write::new(room, n.to_string())).collect();
    let told = join_all(writes.iter().map(|write| insist(store, write.clone()))).await;
    writes.iter().zip(told).map(|(write, told)| (write.note, told.unwrap().output)).collect()
}

/// The same, and then a look at the log.
async fn write_and_check(store: &EventStore, room: Uuid, notes: usize) {
    let told = write(store, room, notes).await;
    History::read(store).await.has(told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_any_two_statements_loses_and_doubles_nothing() {
    let database = Database::new().await;
    let (proxy, store) = behind_proxy(&database, impatient()).await;
    // Another store writes to the same room, so that the faults hit the locked way of committing too.
    let other = open(&database).await;
    let room = Uuid::now_v7();
    insist(&store, OpenRoom(room)).await.unwrap();
    let (mut struck, mut told) = (0, Vec::new());
    for fault in [Fault::CutBefore, Fault::CutAfter] {
        for contended in [false, true] {
            for request in 0..8 {
                if contended {
                    told.extend(write(&other, room, 1).await);
                }
                proxy.arm(request, fault);
                told.extend(write(&store, room, 3).await);
                struck += usize::from(proxy.disarm());
            }
        }
    }
    assert!(struck >= 12, "only {struck} faults struck");
    let history = History::read(&store).await;
    assert_eq!(history.notes(), told.len());
    history.has(told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_is_answered_as_what_it_is() {
    let database = Database::new().await;
    let (proxy, store) = behind_proxy(&database, impatient()).await;
    let room = Uuid::now_v7();
    insist(&store, OpenRoom(room)).await.unwrap();
    insist(&store, Write::new(room, "warm")).await.unwrap();
    // The next request is the append itself: all else is cached.
    proxy.arm(0, Fault::CutAfter);
    let written = store.execute(Write::new(room, "committed"), Context::default()).await.unwrap();
    assert!(proxy.disarm());
    assert_eq!((written.output.seq, written.changed), (Some(3), true));
    proxy.arm(0, Fault::CutBefore);
    let written = store.execute(Write::new(room, "never sent"), Context::default()).await.unwrap();
    assert!(proxy.disarm());
    assert_eq!((written.output.seq, written.changed), (Some(4), true));
    assert_eq!(History::read(&store).await.notes(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_succeeds_after_it_was_given_up_does_no_harm() {
    for retried_first in [true, false] {
        let database = Database::new().await;
        let (proxy, store) = behind_proxy(&database, impatient()).await;
        let room = Uuid::now_v7();
        insist(&store, OpenRoom(room)).await.unwrap();
        insist(&store, Write::new(room, "warm")).await.unwrap();
        proxy.arm(0, Fault::Hold);
        let write = Write::new(room, "held back");
        if retried_first {
            // It is committed by another attempt, and then comes to the server.
            let told = store.execute(write.clone(), Context::default()).await.unwrap();
            proxy.release();
            write_and_check(&store, room, 2).await;
            assert_eq!(insist(&store, write.clone()).await.unwrap().output, told.output);
        } else {
            // No other attempt comes through; it arrives after its caller was told that nothing is known.
            proxy.refuse(true);
            let told = store.execute(write.clone(), Context::default()).await;
            assert!(matches!(told, Err(ExecuteError::Unavailable(_))));
            proxy.release();
            eventually("the commit", BOUND, async || {
                store_beside(&database).await.log().numbered_heads(&[room]).await.unwrap()[&room] == 3
            })
            .await;
            proxy.refuse(false);
            let told = insist(&store, write.clone()).await.unwrap();
            assert_eq!((told.output.seq, told.changed), (Some(3), false));
        }
        let history = History::read(&store).await;
        assert_eq!(history.notes(), if retried_first { 4 } else { 2 });
    }
}

async fn store_beside(database: &Database) -> EventStore {
    open(database).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_callers_are_told_soon_and_served_again_by_itself() {
    let database = Database::new().await;
    let (proxy, store) = behind_proxy(&database, impatient()).await;
    let room = Uuid::now_v7();
    insist(&store, OpenRoom(room)).await.unwrap();
    proxy.refuse(true);
    proxy.cut();
    let asked = join_all((0..20).map(|_| store.execute(Write::new(room, "now"), Context::default())));
    let told = timeout(BOUND, asked).await.unwrap();
    assert!(told.iter().all(|told| matches!(told, Err(ExecuteError::Unavailable(_)))));
    proxy.refuse(false);
    timeout(BOUND, write_and_check(&store, room, 5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_is_given_up_in_time() {
    let database = Database::new().await;
    let (_proxy, store) = behind_proxy(&database, impatient()).await;
    let room = Uuid::now_v7();
    insist(&store, OpenRoom(room)).await.unwrap();
    let mut blocker = database.pool().begin().await.unwrap();
    sqlx::query("SELECT 1 FROM log.shards FOR UPDATE").execute(&mut *blocker).await.unwrap();
    let told = timeout(BOUND, store.execute(Write::new(room, "stuck"), Context::default())).await.unwrap();
    assert!(matches!(told, Err(ExecuteError::Unavailable(_))));
    blocker.rollback().await.unwrap();
    write_and_check(&store, room, 3).await;
    assert_eq!(History::read(&store).await.notes(), 3);
}

const ENOUGH_KILLS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn backends_killed_at_random_while_many_write() {
    let database = Database::new().await;
    let stores = join_all([1, 2].map(|lanes| open_with(database.options(), Options { lanes, ..impatient() }))).await;
    let rooms: Vec<_> = (0..5).map(|_| Uuid::now_v7()).collect();
    for room in &rooms {
        insist(&stores[0], OpenRoom(*room)).await.unwrap();
    }
    let done = AtomicBool::new(false);
    let kills = Arc::new(AtomicUsize::new(0));
    let killing = async {
        while !done.load(Ordering::Relaxed) {
            let killed: Vec<bool> = sqlx::query_scalar(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                  WHERE datname = current_database() AND application_name LIKE 'parlance lane%' \
                  ORDER BY random() LIMIT 1",
            )
            .fetch_all(database.pool())
            .await
            .unwrap();
            kills.fetch_add(killed.len(), Ordering::Relaxed);
            sleep(Duration::from_micros(rand::random_range(2_000..40_000))).await;
        }
    };
    let writing = async {
        let writers = (0..16_usize).map(|writer| {
            let (stores, rooms, kills) = (stores.clone(), rooms.clone(), Arc::clone(&kills));
            tokio::spawn(async move {
                let mut told = HashMap::new();
                // On a fast machine longer than that: until enough was killed to mean something.
                for n in (0..2_000).take_while(|n| *n < 40 || kills.load(Ordering::Relaxed) < ENOUGH_KILLS) {
                    let (store, room) = (&stores[(writer + n) % 2], rooms[(writer * 7 + n) % rooms.len()]);
                    let who = Uuid::from_u128(writer as u128 + 1);
                    if n % 10 == 0 {
                        let _ = insist(store, Membership { room, who, present: n % 20 == 0 }).await;
                    }
                    let write = Write::new(room, format!("{writer}/{n}"));
                    told.insert(write.note, insist(store, write.clone()).await.unwrap().output);
                    if n % 7 == 0 {
                        // Sent again, to the other store: the first result.
                        let again = insist(&stores[(writer + n + 1) % 2], write.clone()).await.unwrap().output;
                        assert_eq!(again, told[&write.note]);
                    }
                }
                told
            })
        });
        let told = join_all(writers).await;
        done.store(true, Ordering::Relaxed);
        told
    };
    let ((), told) = tokio::join!(killing, writing);
    let kills = kills.load(Ordering::Relaxed);
    assert!(kills >= ENOUGH_KILLS, "only {kills} backends were killed");
    let told: HashMap<_, _> = told.into_iter().flat_map(Result::unwrap).collect();
    let history = History::read(&stores[0]).await;
    assert!(told.len() >= 640);
    assert_eq!(history.notes(), told.len());
    history.has(told);
}
