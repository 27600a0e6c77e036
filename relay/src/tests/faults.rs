//! A bus that is away, hangs, forgets, and holds what is not ours.

use std::sync::Arc;
use std::time::Duration;

use event_store::EventStore;
use schemas::Topic;
use testkit::{Database, eventually};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::kafka::{Cluster, Kept};
use crate::leadership::Place;
use crate::testing::{open_room, say, store};
use crate::{Leadership, Options, Relay, RelayStatus, Stall};

pub(super) const BOUND: Duration = Duration::from_mins(1);

/// Impatient, with small pages.
pub(super) fn options() -> Options {
    Options {
        page: 7,
        turn: 2,
        check: Duration::from_millis(100),
        stall: Duration::from_millis(100),
        patience: Duration::from_millis(500),
        ..Options::alone()
    }
}

/// A relay that follows its store, or only the log.
fn start(store: &EventStore, cluster: &Arc<Cluster>, follows: bool) -> (DropGuard, RelayStatus) {
    let shutdown = CancellationToken::new();
    let mut relay = Relay::new(store.log().clone(), cluster.producer(), Leadership::All, options());
    if follows {
        relay = relay.following(store.committed());
    }
    let status = relay.status();
    tokio::spawn(relay.run(shutdown.clone()));
    (shutdown.drop_guard(), status)
}

async fn whole(cluster: &Cluster, store: &EventStore) {
    eventually("the bus has all", BOUND, async || cluster.is_whole(store.log()).await).await;
}

fn place_of(store: &EventStore, room: Uuid) -> Place {
    (Topic::Conversations, store.log().shard_of(room))
}

/// Two rooms of different shards.
async fn two_rooms(store: &EventStore) -> [Uuid; 2] {
    let one = open_room(store).await;
    loop {
        let other = open_room(store).await;
        if place_of(store, other) != place_of(store, one) {
            return [one, other];
        }
    }
}

#[tokio::test]
async fn a_backlog_and_what_comes_after_it_arrive_once_and_in_order() {
    let database = Database::new().await;
    let (ours, theirs) = (
        store(&database, event_store::Options::default()).await,
        store(&database, event_store::Options::default()).await,
    );
    let rooms = two_rooms(&ours).await;
    say(&ours, rooms[0], 300).await;
    for follows in [true, false] {
        let cluster = Arc::new(Cluster::default());
        let (_stop, status) = start(&ours, &cluster, follows);
        for _ in 0..5 {
            tokio::join!(say(&ours, rooms[0], 20), say(&theirs, rooms[0], 20), say(&theirs, rooms[1], 20));
        }
        whole(&cluster, &ours).await;
        assert_eq!(cluster.assert_sound(ours.log()).await, 0);
        eventually("it is well", BOUND, async || status.check() == Ok("relays 8 shards, 0 events behind".into())).await;
    }
}

#[tokio::test]
async fn what_is_emptied_or_shortened_is_filled_again_though_nothing_new_comes() {
    let database = Database::new().await;
    let store = store(&database, event_store::Options::default()).await;
    let rooms = two_rooms(&store).await;
    say(&store, rooms[0], 50).await;
    say(&store, rooms[1], 50).await;
    let cluster = Arc::new(Cluster::default());
    let _running = start(&store, &cluster, true);
    whole(&cluster, &store).await;
    cluster.truncate(place_of(&store, rooms[0]), 0);
    cluster.truncate(place_of(&store, rooms[1]), 20);
    whole(&cluster, &store).await;
    assert_eq!(cluster.assert_sound(store.log()).await, 0);
    // And when something new comes at that very moment.
    cluster.truncate(place_of(&store, rooms[0]), 10);
    say(&store, rooms[0], 1).await;
    whole(&cluster, &store).await;
    cluster.assert_sound(store.log()).await;
}

#[tokio::test]
async fn while_the_bus_is_away_the_log_holds_all() {
    let database = Database::new().await;
    let store = store(&database, event_store::Options::default()).await;
    let rooms = two_rooms(&store).await;
    let cluster = Arc::new(Cluster::default());
    cluster.away(true);
    let (_stop, status) = start(&store, &cluster, true);
    say(&store, rooms[0], 100).await;
    let fails = || status.check().is_err_and(|wrong| wrong.starts_with("nothing can be published for "));
    eventually("it says so", BOUND, async || fails() && status.standing().lag >= 100).await;
    assert_eq!(cluster.total(), 0);
    cluster.away(false);
    whole(&cluster, &store).await;
    eventually("it is well", BOUND, async || status.check().is_ok()).await;
    // Away in the midst of it, too.
    for _ in 0..3 {
        cluster.away(true);
        say(&store, rooms[1], 30).await;
        eventually("it says so", BOUND, async || fails()).await;
        cluster.away(false);
        say(&store, rooms[1], 30).await;
    }
    whole(&cluster, &store).await;
    assert_eq!(cluster.assert_sound(store.log()).await, 0);
}

#[tokio::test]
async fn a_shard_that_hangs_holds_no_other() {
    let database = Database::new().await;
    let store = store(&database, event_store::Options::default()).await;
    let rooms = two_rooms(&store).await;
    for follows in [true, false] {
        let cluster = Arc::new(Cluster::default());
        let (_stop, status) = start(&store, &cluster, follows);
        whole(&cluster, &store).await;
        cluster.hang(place_of(&store, rooms[0]));
        say(&store, rooms[0], 10).await;
        eventually("it says so", BOUND, async || status.standing().bus_failing_since.is_some()).await;
        for round in 1..=3 {
            let before = cluster.len(place_of(&store, rooms[1]));
            say(&store, rooms[1], 10 * round).await;
            let there = async || cluster.len(place_of(&store, rooms[1])) == before + 10 * round;
            eventually("the other goes on", BOUND, there).await;
        }
    }
}

#[tokio::test]
async fn a_shard_that_ends_with_what_is_not_ours_stands_still_until_that_is_mended() {
    let database = Database::new().await;
    let store = store(&database, event_store::Options::default()).await;
    let rooms = two_rooms(&store).await;
    say(&store, rooms[0], 5).await;
    let place = place_of(&store, rooms[0]);
    let ours = store.log().read(crate::stored::private(place.0), place.1, 2, 1).await.unwrap()[0].event_id;
    let strange = [
        Kept::Foreign,
        // Another's event at that position, one beyond the log's end, and one of ours at a place that is not its own.
        Kept::Record(3, Uuid::now_v7()),
        Kept::Record(1_000_000, Uuid::now_v7()),
        Kept::Record(u64::MAX, Uuid::now_v7()),
        Kept::Record(0, Uuid::now_v7()),
        Kept::Record(4, ours),
    ];
    for record in strange {
        let cluster = Arc::new(Cluster::default());
        cluster.put(place, record);
        let (_stop, status) = start(&store, &cluster, true);
        let standing = || status.standing().stalled.iter().map(|(p, why)| (p.shard, *why)).collect::<Vec<_>>();
        eventually("it says so", BOUND, async || standing() == [(place.1, Stall::Foreign)]).await;
        say(&store, rooms[0], 1).await;
        say(&store, rooms[1], 3).await;
        let others = crate::heads(store.log()).await.unwrap().into_iter().map(|head| (head.topic, head.shard));
        for other in others.filter(|other| *other != place) {
            let there = async || {
                let heads = crate::heads(store.log()).await.unwrap();
                let head = heads.iter().find(|head| (head.topic, head.shard) == other).unwrap();
                cluster.len(other) as u64 == head.position
            };
            eventually("the others go on", BOUND, there).await;
        }
        assert_eq!(cluster.len(place), 1);
        cluster.truncate(place, 0);
        whole(&cluster, &store).await;
        assert_eq!(cluster.assert_sound(store.log()).await, 0);
        eventually("it is well", BOUND, async || status.check().is_ok()).await;
    }
    // One of ours is gone on from.
    let cluster = Arc::new(Cluster::default());
    for event in store.log().read(crate::stored::private(place.0), place.1, 0, 3).await.unwrap() {
        cluster.put(place, Kept::Record(event.position, event.event_id));
    }
    let _running = start(&store, &cluster, true);
    whole(&cluster, &store).await;
    assert_eq!(cluster.assert_sound(store.log()).await, 0);
}
