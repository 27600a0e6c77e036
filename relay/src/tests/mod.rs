//! The relay, from a real log.

mod faults;
mod kafka;
mod leadership;
mod others;
mod replay;

use std::sync::Arc;

use crate::{Leadership, Options, Relay, heads};
use platform::bus::Bus;
use schemas::Topic;
use std::collections::BTreeMap;
use tokio_util::sync::CancellationToken;

use event_store::EventStore;
use testkit::Database;
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

use crate::testing::{bus, from_the_beginning, open_room, read, say, store};

fn start(store: &EventStore, bus: &Arc<dyn Bus>) -> (DropGuard, JoinHandle<()>) {
    let shutdown = CancellationToken::new();
    let relay = Relay::new(store.log().clone(), Arc::clone(bus), Leadership::All, Options::default())
        .following(store.committed());
    let running = tokio::spawn(relay.run(shutdown.clone()));
    (shutdown.drop_guard(), running)
}

#[tokio::test]
async fn what_was_there_before_and_what_comes_is_one_sequence() {
    let database = Database::new().await;
    let store = store(&database, event_store::Options::default()).await;
    let room = open_room(&store).await;
    say(&store, room, 20).await;
    let bus = bus(&store).await;
    let mut reader = from_the_beginning(&*bus).await;
    let (stop, running) = start(&store, &bus);
    say(&store, room, 20).await;
    let mut seen = BTreeMap::new();
    let first = read(&mut *reader, 41, &mut seen).await;
    assert!(first.iter().all(|record| record.key == room));
    drop(stop);
    running.await.unwrap();
    // A relay that starts later goes on where the bus is.
    say(&store, room, 5).await;
    let _running = start(&store, &bus);
    read(&mut *reader, 5, &mut seen).await;
}

#[tokio::test]
async fn two_processes_writing_at_once_are_one_sequence() {
    let database = Database::new().await;
    let ours = store(&database, event_store::Options::default()).await;
    let theirs = store(&database, event_store::Options::default()).await;
    let bus = bus(&ours).await;
    let mut reader = from_the_beginning(&*bus).await;
    let _running = start(&ours, &bus);
    let rooms = [open_room(&ours).await, open_room(&theirs).await, open_room(&theirs).await];
    for _ in 0..10 {
        tokio::join!(say(&ours, rooms[0], 7), say(&theirs, rooms[0], 7), say(&theirs, rooms[1], 7));
    }
    // And one in a shard that this process never touches.
    say(&theirs, rooms[2], 1).await;
    let mut seen = BTreeMap::new();
    read(&mut *reader, 3 + 210 + 1, &mut seen).await;
    for head in heads(ours.log()).await.unwrap().into_iter().filter(|head| head.topic == Topic::Conversations) {
        assert_eq!(seen.get(&head.shard).copied().unwrap_or(0), head.position, "{head}");
    }
}

#[tokio::test]
async fn a_relay_that_was_too_slow_for_its_store_reads_the_log() {
    let database = Database::new().await;
    let options = event_store::Options { committed_batches: 1, batch_commands: 1, ..event_store::Options::default() };
    let store = store(&database, options).await;
    let bus = bus(&store).await;
    let mut reader = from_the_beginning(&*bus).await;
    // Follows, but does not run yet: all but the last batch go by.
    let relay = Relay::new(store.log().clone(), Arc::clone(&bus), Leadership::All, Options::default())
        .following(store.committed());
    let room = open_room(&store).await;
    say(&store, room, 10).await;
    let shutdown = CancellationToken::new();
    let _stop = shutdown.clone().drop_guard();
    tokio::spawn(relay.run(shutdown));
    read(&mut *reader, 11, &mut BTreeMap::new()).await;
}

#[tokio::test]
async fn a_shard_that_cannot_go_on_holds_no_other() {
    let database = Database::new().await;
    let ours = store(&database, event_store::Options::default()).await;
    let theirs = store(&database, event_store::Options::default()).await;
    let bus = bus(&ours).await;
    let mut reader = from_the_beginning(&*bus).await;
    let strange = open_room(&theirs).await;
    let mut other = open_room(&ours).await;
    while ours.log().shard_of(other) == ours.log().shard_of(strange) {
        other = open_room(&ours).await;
    }
    let mut seen = BTreeMap::new();
    let _running = start(&ours, &bus);
    let opened: u64 = heads(ours.log()).await.unwrap().iter().map(|head| head.position).sum();
    read(&mut *reader, usize::try_from(opened).unwrap(), &mut seen).await;
    // Another version of the program writes what this one does not know.
    let mut transaction = database.pool().begin().await.unwrap();
    sqlx::query(
        "INSERT INTO log.events \
         SELECT topic, shard, s.head + 1, key, 99, aggregate_type, aggregate_id, 99, event_id, \
                'conversation.exploded', 1, at, payload, metadata, hash \
           FROM log.events JOIN log.shards s USING (topic, shard) WHERE key = $1 AND seq = 1",
    )
    .bind(strange)
    .execute(&mut *transaction)
    .await
    .unwrap();
    sqlx::query("UPDATE log.shards SET head = head + 1 WHERE topic = 1 AND shard = $1")
        .bind(i16::try_from(ours.log().shard_of(strange)).unwrap())
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    say(&ours, other, 3).await;
    let passed = read(&mut *reader, 3, &mut seen).await;
    assert!(passed.iter().all(|record| record.key == other));
}
