//! Records are published again, topics are emptied, and consumers start from nothing: nobody is the wiser.

use std::{
    collections::BTreeMap,
    process::{Output, Stdio},
};

use futures::future::join;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};
use testkit::{
    app::{Blow, Place, Role},
    eventually,
};

use crate::blows::{delete_topics, during, traffic};
use crate::models::{Models, forget};
use crate::people::{BOUND, person, place, place_on_stack};
use crate::records::{TOPICS, dense_up_to_the_heads, read_all};

async fn replay(place: &Place, target: &str, from: u64) -> Output {
    place.command(&["replay", target, "--from", &from.to_string()]).output().await.unwrap()
}

/// Has everything published again; the ids of the requests, and how many records that were.
pub(crate) async fn replay_all(place: &Place) -> (Vec<String>, i64) {
    let (users, conversations) = join(replay(place, TOPICS[0], 1), replay(place, TOPICS[1], 1)).await;
    let mut ids = Vec::new();
    let mut records = 0;
    for output in [users, conversations] {
        let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}{told}");
        // N of N records published again, as ID
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(words[0], words[2], "{said}");
        records += words[0].parse::<i64>().unwrap();
        ids.push((*words.last().unwrap()).to_owned());
    }
    (ids, records)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_published_again_twice_under_traffic_is_noticed_by_nobody() {
    let place = place_on_stack().await;
    let mut app = place.start().await.unwrap();
    let mut traffic = traffic(&app).await;
    during(&mut traffic, "before", async {}).await;
    during(&mut traffic, "all is published again", replay_all(&place)).await;
    let roles = app.roles().unwrap();
    let struck = join(replay_all(&place), roles.strike(&place, Blow::All(Role::Relay)));
    during(&mut traffic, "and again, and the relays are killed", struck).await.1.unwrap();
    traffic.end().await;

    let before = Models::of(&app).await;
    let (ids, records) = replay_all(&place).await;
    assert_eq!(records, before.records());
    dense_up_to_the_heads(&app).await;
    assert_eq!(Models::of(&app).await, before);
    // Each of them was there once more, in order, and said why.
    let brokers = place.engines().unwrap().kafka.address().to_owned();
    let raw = tokio::task::spawn_blocking(move || read_all(&brokers)).await.unwrap();
    let mut again: BTreeMap<(String, i32), u64> = BTreeMap::new();
    for record in raw.iter().filter(|record| record.headers.get("ce_replay").is_some_and(|id| ids.contains(id))) {
        let last = again.entry((record.topic.clone(), record.partition)).or_default();
        // Whatever took its time may have been sent once more, from there on.
        assert!(record.sequence() <= *last + 1, "{record:?} after {last}");
        *last = record.sequence().max(*last);
    }
    assert_eq!(again.values().sum::<u64>(), records.unsigned_abs());
    assert!(app.stop().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_starts_from_nothing_gets_everything_from_a_kafka_that_was_wiped() {
    let place = place_on_stack().await;
    let app = place.start().await.unwrap();
    let mut traffic = traffic(&app).await;
    during(&mut traffic, "the topics are deleted", delete_topics(&place, &TOPICS)).await;
    traffic.end().await;
    dense_up_to_the_heads(&app).await;
    replay_all(&place).await;
    let before = Models::of(&app).await;
    assert!(app.stop().await.unwrap().success());
    forget(place.engines().unwrap().database()).await;
    let app = place.start().await.unwrap();
    assert_eq!(Models::of(&app).await, before);
    assert!(app.stop().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_published_again_is_refused() {
    let nowhere = replay(&place(), TOPICS[0], 1).await;
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("KAFKA_BROKERS"), "{nowhere:?}");
    let unknown = replay(&place(), "parlance.things.v1", 1).await;
    assert_eq!(unknown.status.code(), Some(2));
    assert!(TOPICS.iter().all(|topic| String::from_utf8_lossy(&unknown.stderr).contains(topic)), "{unknown:?}");
    assert_eq!(replay(&place(), TOPICS[0], 0).await.status.code(), Some(2), "positions begin at 1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_relay_takes_is_taken_back_by_an_interrupt() {
    let place = place_on_stack().await;
    // Somebody writes the log, and nobody publishes it.
    let commands = place.serve(&["serve", "--roles", "command-api"]).await.unwrap();
    person(&commands.server(), "ann").await;
    let far = replay(&place, TOPICS[0], 1000).await;
    assert_eq!(far.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&far.stderr).contains("there is nothing at 1000"), "{far:?}");
    let mut command = place.command(&["replay", TOPICS[0], "--from", "1"]);
    let asking = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut database = PgConnection::connect_with(place.engines().unwrap().database()).await.unwrap();
    let mut states = async || -> Vec<String> {
        sqlx::query_scalar("SELECT DISTINCT state FROM state.replays").fetch_all(&mut database).await.unwrap()
    };
    eventually("it is asked for", BOUND, async || states().await == ["open"]).await;
    let pid = Pid::from_raw(asking.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ended = asking.wait_with_output().await.unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("taken back: 0 of "), "{ended:?}");
    assert_eq!(states().await, ["cancelled"]);
    assert!(commands.stop().await.unwrap().success());
}
