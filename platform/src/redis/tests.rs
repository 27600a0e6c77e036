//! Redis that hangs, dies, comes back and moves.

use std::error::Error;

use testkit::eventually;
use testkit::redis::{Redis as Server, RedisCluster};
use tokio::time::timeout;

use super::*;

const BOUND: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_mins(1);

async fn connect(urls: &str) -> Redis {
    Redis::connect_within(&urls.into(), LONG, "test:").await.unwrap()
}

async fn set(redis: &Redis, key: &str) -> Result<(), RedisError> {
    let key = redis.key(key);
    redis.ask(&key, redis::cmd("SET").arg(&key).arg(1), BOUND).await
}

#[tokio::test]
async fn a_server_that_hangs_or_dies_is_waited_for_by_nobody_and_found_again() {
    let server = Server::start().unwrap();
    let redis = connect(&server.url()).await;
    set(&redis, "a").await.unwrap();
    assert_eq!(redis.check().await.unwrap(), "answers");
    for (away, back) in
        [(Server::pause as fn(&Server) -> _, Server::resume as fn(&Server) -> _), (Server::kill, Server::start_again)]
    {
        away(&server).unwrap();
        eventually("it is known to be away", LONG, async || matches!(set(&redis, "a").await, Err(RedisError::Away)))
            .await;
        let asked = async {
            for _ in 0..1_000 {
                assert!(set(&redis, "a").await.is_err());
            }
        };
        timeout(LONG, asked).await.expect("none of them waits for its own bound");
        assert_eq!(redis.check().await.unwrap_err(), "does not answer");
        back(&server).unwrap();
        eventually("it is found again", LONG, async || set(&redis, "a").await.is_ok()).await;
    }
}

#[tokio::test]
async fn a_command_is_bounded() {
    let server = Server::start().unwrap();
    let redis = connect(&server.url()).await;
    server.pause().unwrap();
    let failed = redis.ask::<()>("a", &redis::cmd("PING"), Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(failed, RedisError::Slow(_)), "{failed}");
    server.resume().unwrap();
}

#[tokio::test]
async fn who_refuses_is_not_waited_for_and_who_is_away_is_named() {
    let server = Server::start().unwrap();
    let wrong = server.url().replace("redis://", "redis://me:hunter2@");
    let refused = Redis::connect_within(&wrong.into(), LONG, "").await.unwrap_err();
    assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
    let twice = format!("{0},{0}", server.url());
    let refused = Redis::connect_within(&twice.into(), LONG, "").await.unwrap_err();
    assert!(matches!(refused, ConnectError::NoCluster { .. }), "{refused}");
    let url = server.url().replace("redis://", "redis://me:hunter2@");
    server.stop().unwrap();
    let away = Redis::connect_within(&url.into(), Duration::ZERO, "").await.unwrap_err();
    let port = server.url().rsplit_once(':').unwrap().1.to_owned();
    let mut said = away.to_string();
    let mut source = away.source();
    while let Some(error) = source {
        said = format!("{said}: {error}");
        source = error.source();
    }
    assert!(said.starts_with(&format!("Redis at 127.0.0.1:{port} was not reachable within 0 s")), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn a_server_that_is_late_is_waited_for() {
    let server = Server::start().unwrap();
    server.stop().unwrap();
    let url = server.url().into();
    let connecting = tokio::spawn(async move { Redis::connect_within(&url, LONG, "").await });
    server.start_again().unwrap();
    let redis = connecting.await.unwrap().unwrap();
    set(&redis, "a").await.unwrap();
}

#[tokio::test]
async fn a_cluster_is_asked_where_the_key_is_and_one_lost_node_is_all_that_fails() {
    let cluster = RedisCluster::start().unwrap();
    // Of one node all are found.
    let redis = connect(&cluster.node_url(2)).await;
    assert_eq!(redis.nodes().all.len(), 3);
    assert_eq!(redis.check().await.unwrap(), "all 3 nodes answer");
    for key in 0..50 {
        set(&redis, &format!("{{{key}}}:a")).await.unwrap();
    }
    cluster.pause(0).unwrap();
    eventually("one is missed", LONG, async || redis.check().await.is_err_and(|said| said == "2 of 3 nodes answer"))
        .await;
    cluster.resume(0).unwrap();
    eventually("all work again", LONG, async || {
        let mut well = redis.check().await.is_ok();
        for key in 0..50 {
            well &= set(&redis, &format!("{key}")).await.is_ok();
        }
        well
    })
    .await;
}

#[tokio::test]
async fn a_slot_that_moved_is_found() {
    let cluster = RedisCluster::start().unwrap();
    let redis = connect(&cluster.url()).await;
    let nodes = redis.nodes();
    let key = redis.key("{moves}");
    let from = nodes.of(key.as_bytes()).cloned().unwrap();
    let to = nodes.all.iter().find(|node| !Arc::ptr_eq(node, &from)).cloned().unwrap();
    let slot: u16 = from.ask(redis::cmd("CLUSTER").arg("KEYSLOT").arg(&key), BOUND).await.unwrap();
    let id: String = to.ask(redis::cmd("CLUSTER").arg("MYID"), BOUND).await.unwrap();
    for node in [&to, &from] {
        let mut give = redis::cmd("CLUSTER");
        give.arg("SETSLOT").arg(slot).arg("NODE").arg(&id);
        node.ask::<()>(&give, BOUND).await.unwrap();
    }
    let mut changes = redis.changes();
    eventually("the new holder is asked", LONG, async || set(&redis, "{moves}").await.is_ok()).await;
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(redis.nodes().of(key.as_bytes()).unwrap().address, to.address);
}
