//! Roles apart on real engines, and one part after the other is killed, held up, replaced or emptied under traffic.

use std::time::Duration;

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use testkit::app::{App, Blow, Place, Role};

use crate::crowd::Crowd;
use crate::people::place_on_stack;
use crate::records::{HEADS_BOUND, TOPICS, dense_up_to_the_heads};

const CLIENTS: usize = 12;
const CONVERSATIONS: usize = 3;
/// Messages of each client before a blow, and while it falls.
const EACH: usize = 6;

/// A dozen people who talk.
pub(crate) async fn traffic(app: &App) -> Crowd {
    Crowd::online(&app.server(), CLIENTS, CONVERSATIONS).await
}

/// Takes topics from Kafka, with all that is in them.
pub(crate) async fn delete_topics(place: &Place, topics: &[&str]) {
    let brokers = place.engines().unwrap().kafka.address();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(20)));
    let deleted = admin.delete_topics(topics, &options).await.unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
}

/// Says things, does something to the installation meanwhile, and waits until all of it has come.
pub(crate) async fn during<T>(traffic: &mut Crowd, what: &str, act: impl Future<Output = T>) -> T {
    eprintln!("{what}");
    let before = traffic.say(what, EACH);
    let done = act.await;
    for send in before.into_iter().chain(traffic.say(what, EACH)) {
        send.await.unwrap();
    }
    traffic.arrived().await;
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_struck_nothing_is_lost_doubled_or_late() {
    let place = place_on_stack().await;
    let mut app = place.start().await.unwrap();
    let mut traffic = traffic(&app).await;
    let roles = [Role::Relay, Role::Projectors, Role::QueryApi, Role::CommandApi];
    let of_roles = |blow: fn(Role) -> Blow| roles.map(blow);
    let blows = of_roles(Blow::One)
        .into_iter()
        .chain(of_roles(Blow::Replace))
        .chain(of_roles(Blow::All))
        .chain(of_roles(Blow::Hang))
        .chain([Blow::Redis, Blow::Kafka, Blow::Postgres]);
    for blow in blows {
        let roles = app.roles().unwrap();
        during(&mut traffic, &blow.to_string(), roles.strike(&place, blow)).await.unwrap();
    }
    let roles = app.roles().unwrap();
    during(&mut traffic, "those that were held up go on", async { roles.let_go() }).await;
    traffic.end().await;
    dense_up_to_the_heads(&app).await;
    assert!(app.stop().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_that_was_wiped_is_filled_again_and_nothing_happens_twice() {
    let place = place_on_stack().await;
    let app = place.start().await.unwrap();
    let mut traffic = traffic(&app).await;
    during(&mut traffic, "before", async {}).await;
    during(&mut traffic, "the topics are deleted", delete_topics(&place, &TOPICS)).await;
    // Without anything new, too.
    dense_up_to_the_heads(&app).await;
    delete_topics(&place, &TOPICS[1..]).await;
    dense_up_to_the_heads(&app).await;
    during(&mut traffic, "after", async {}).await;
    traffic.end().await;
    assert!(HEADS_BOUND <= Duration::from_mins(1), "what the contract promises");
    assert!(app.stop().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_emptied_or_away_is_harmless() {
    let place = place_on_stack().await;
    let app = place.start().await.unwrap();
    let mut traffic = traffic(&app).await;
    let redis = &place.engines().unwrap().redis;
    for round in 0..5 {
        during(&mut traffic, &format!("emptied {round}"), async { redis.flush().unwrap() }).await;
    }
    redis.pause().unwrap();
    during(&mut traffic, "held up", async {}).await;
    redis.resume().unwrap();
    redis.kill().unwrap();
    during(&mut traffic, "away", async {}).await;
    redis.start_again().unwrap();
    during(&mut traffic, "back", async {}).await;
    traffic.end().await;
    assert!(app.stop().await.unwrap().success());
}
