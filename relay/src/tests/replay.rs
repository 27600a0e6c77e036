//! Records that are published again, on request.

use std::sync::Arc;

use event_store::EventStore;
use schemas::Topic;
use testkit::{Database, eventually};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::faults::{BOUND, options};
use super::kafka::{Cluster, Kept};
use crate::leadership::Place;
use crate::replay::requests::{self, Progress, Wanted};
use crate::testing::{open_room, say, store};
use crate::{Leadership, Relay};

fn start(store: &EventStore, cluster: &Arc<Cluster>) -> DropGuard {
    let shutdown = CancellationToken::new();
    let relay = Relay::new(store.log().clone(), cluster.producer(), Leadership::All, options())
        .following(store.committed())
        .replaying(store.log().pool().clone());
    tokio::spawn(relay.run(shutdown.clone()));
    shutdown.drop_guard()
}

async fn whole(cluster: &Cluster, store: &EventStore) {
    eventually("the bus has all", BOUND, async || cluster.is_whole(store.log()).await).await;
}

fn place_of(store: &EventStore, room: Uuid) -> Place {
    (Topic::Conversations, store.log().shard_of(room))
}

async fn progress(store: &EventStore, replay: Uuid) -> Progress {
    requests::progress(store.log().pool(), replay).await.unwrap()
}

async fn ask(store: &EventStore, (topic, shard): Place, first: u64, last: u64) -> Uuid {
    requests::ask(store.log().pool(), &[Wanted { topic, shard, first, last }]).await.unwrap()
}

async fn through(store: &EventStore, replay: Uuid) {
    eventually("it is through", BOUND, async || progress(store, replay).await.open == 0).await;
}

#[tokio::test]
async fn what_is_asked_for_is_published_again_in_order_between_live_records() {
    let database = Database::new().await;
    let store = store(&database, event_store::Options::default()).await;
    let room = open_room(&store).await;
    say(&store, room, 99).await;
    let cluster = Arc::new(Cluster::default());
    let _running = start(&store, &cluster);
    whole(&cluster, &store).await;
    let place = place_of(&store, room);
    let replays = [ask(&store, place, 1, 100).await, ask(&store, place, 41, 60).await];
    say(&store, room, 100).await;
    for (replay, wanted) in replays.into_iter().zip([1..=100, 41..=60]) {
        through(&store, replay).await;
        assert_eq!(cluster.again(place, replay), wanted.collect::<Vec<_>>());
    }
    say(&store, room, 10).await;
    whole(&cluster, &store).await;
    assert_eq!(cluster.assert_sound(store.log()).await, 120, "nothing came twice that was not asked for");
    let done = progress(&store, replays[0]).await;
    assert_eq!(done, Progress { records: 100, done: 100, open: 0, failures: vec![] });
}

#[tokio::test]
async fn a_successor_goes_on_with_what_is_new_and_with_what_was_asked_for() {
    let database = Database::new().await;
    let store = store(&database, event_store::Options::default()).await;
    let room = open_room(&store).await;
    say(&store, room, 299).await;
    let cluster = Arc::new(Cluster::default());
    let place = place_of(&store, room);
    let first = start(&store, &cluster);
    whole(&cluster, &store).await;
    let replay = ask(&store, place, 1, 300).await;
    eventually("some were published again", BOUND, async || cluster.again(place, replay).len() > 20).await;
    drop(first);
    // It may be in the midst of a page.
    let Some(Kept::Again(position, .., (300, _))) = cluster.last(place) else { panic!("{:?}", cluster.last(place)) };
    assert!(position < 300);
    say(&store, room, 1).await;
    let _next = start(&store, &cluster);
    whole(&cluster, &store).await;
    through(&store, replay).await;
    let mut again = cluster.again(place, replay);
    let twice = cluster.assert_sound(store.log()).await;
    assert_eq!(twice, again.len(), "nothing was filled again");
    again.dedup();
    let page = usize::try_from(options().page).unwrap();
    assert!(again.len() <= 300 + page, "no more than the page under way comes once more: {}", again.len());
    again.sort_unstable();
    again.dedup();
    assert_eq!(again, (1..=300).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_that_is_taken_back_or_cannot_go_on_stops_and_says_so() {
    let database = Database::new().await;
    let store = store(&database, event_store::Options::default()).await;
    let room = open_room(&store).await;
    say(&store, room, 20).await;
    let cluster = Arc::new(Cluster::default());
    let place = place_of(&store, room);
    // Asked for while nobody is there, and taken back.
    let forgotten = ask(&store, place, 1, 21).await;
    requests::cancel(store.log().pool(), forgotten).await.unwrap();
    assert_eq!(progress(&store, forgotten).await, Progress { records: 21, ..Progress::default() });
    // One that the log has not in whole.
    sqlx::query(
        "UPDATE log.events SET event_type = 'message.exploded' WHERE topic = 1 AND shard = $1 AND position = 10",
    )
    .bind(i16::try_from(place.1).unwrap())
    .execute(database.pool())
    .await
    .unwrap();
    for event in store.log().read(crate::stored::private(place.0), place.1, 0, 30).await.unwrap() {
        cluster.put(place, Kept::Record(event.position, event.event_id));
    }
    let _running = start(&store, &cluster);
    let broken = ask(&store, place, 5, 21).await;
    through(&store, broken).await;
    let stopped = progress(&store, broken).await;
    assert_eq!((stopped.records, stopped.done), (17, 5));
    let [(at, why)] = &stopped.failures[..] else { panic!("{stopped:?}") };
    assert_eq!((at.position, why.as_str()), (9, "its next event cannot be translated"));
    assert_eq!(cluster.again(place, broken), (5..=9).collect::<Vec<_>>());
    assert_eq!(cluster.again(place, forgotten), [0; 0]);
    // Nor is anybody kept waiting for what nobody can do.
    sqlx::query("INSERT INTO state.replays VALUES ($1, 1, $2, 1, 9, 0, 'open', NULL, now() - interval '2 hours')")
        .bind(forgotten)
        .bind(i16::try_from(place.1 ^ 1).unwrap())
        .execute(database.pool())
        .await
        .unwrap();
    eventually("it is given up", BOUND, async || !progress(&store, forgotten).await.failures.is_empty()).await;
}

#[tokio::test]
async fn a_bus_that_is_away_or_emptied_meanwhile_is_waited_for() {
    let database = Database::new().await;
    let store = store(&database, event_store::Options::default()).await;
    let room = open_room(&store).await;
    say(&store, room, 99).await;
    let cluster = Arc::new(Cluster::default());
    let place = place_of(&store, room);
    let _running = start(&store, &cluster);
    whole(&cluster, &store).await;
    let replay = ask(&store, place, 1, 100).await;
    eventually("some were published again", BOUND, async || !cluster.again(place, replay).is_empty()).await;
    cluster.away(true);
    cluster.truncate(place, 0);
    cluster.away(false);
    through(&store, replay).await;
    whole(&cluster, &store).await;
    cluster.assert_sound(store.log()).await;
}
