//! What devices get, over real sockets.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::SinkExt;
use platform::auth::AuthSettings;
use platform::live::Device;
use schemas::History;
use schemas::ws::close;
use serde_json::{Value, json};
use testkit::eventually;
use tokio_tungstenite::tungstenite::Message as Frame;
use uuid::Uuid;

use super::world::{BOUND, World, device, session_of, user};

#[tokio::test]
async fn two_users_talk() {
    let world = World::new().await;
    let (ann, ben) = (user(1), user(2));
    let room = world.conversation(&[ann, ben]).await;
    let mut anns = world.connect(ann, device(1)).await;
    let mut bens = world.connect(ben, device(2)).await;
    assert_eq!(anns.seen[0]["type"], "welcome");
    assert_eq!(anns.seen[0]["session_id"], json!(session_of(ann, device(1))));
    assert_eq!(anns.seqs(room), [1]);
    let message = Uuid::now_v7();
    anns.say(
        json!({"type": "send", "ref": "1", "conversation_id": room, "message_id": message, "content": "Grüße 👋"}),
    )
    .await;
    let ok = anns.until("ok").await;
    assert_eq!((&ok["ref"], &ok["message_id"], &ok["seq"]), (&json!("1"), &json!(message), &json!(2)));
    let got = bens.until_seq(2).await;
    assert_eq!(got["position"], ok["position"]);
    assert_eq!((&got["event"], &got["data"]["content"]), (&json!("message.sent"), &json!("Grüße 👋")));
    if anns.seqs(room) == [1] {
        anns.until_seq(2).await;
    }
    bens.ack(room, 2).await;
    eventually("the ack is taken", BOUND, async || world.port.receipts.lock().contains(&(ben, room, Some(2), None)))
        .await;
    world.port.move_receipt(room, ben, 2, 1).await;
    let receipt = anns.until("receipt").await;
    assert_eq!((&receipt["user_id"], &receipt["delivered_to"]), (&json!(ben), &json!(2)));
    bens.until("receipt").await;
}

#[tokio::test]
async fn a_device_that_was_away_gets_what_it_missed_and_is_told_who_moved() {
    let world = World::new().await;
    let (ann, ben) = (user(1), user(2));
    let room = world.conversation(&[ann, ben]).await;
    let mut bens = world.connect(ben, device(2)).await;
    bens.ack(room, 1).await;
    eventually("the ack is taken", BOUND, async || !world.port.receipts.lock().is_empty()).await;
    bens.leave().await;
    world.say(room, ann, 600).await;
    world.port.move_receipt(room, ann, 5, 4).await;
    // At once: what was acked counts, though it may not be written yet. And events go on meanwhile.
    let mut bens = world.open(ben, device(2)).await;
    bens.say(json!({"type": "hello"})).await;
    world.say(room, ann, 5).await;
    while bens.count("synced") == 0 {
        if bens.next().await["type"] == "event" {
            let seq = *bens.seqs(room).last().unwrap();
            if seq % 100 == 0 {
                bens.ack(room, seq).await;
            }
        }
    }
    assert_eq!(bens.count("receipt"), 1);
    while bens.seqs(room).last() != Some(&606) {
        bens.next().await;
    }
    assert_eq!(bens.seqs(room), (2..=606).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_said_while_the_read_models_lag_comes_before_synced() {
    let world = World::new().await;
    let (ann, ben) = (user(1), user(2));
    let room = world.conversation(&[ann, ben]).await;
    world.port.lagging.store(true, Ordering::Relaxed);
    world.say(room, ann, 3).await;
    let second = world.conversation(&[ann, ben]).await;
    let mut bens = world.open(ben, device(2)).await;
    bens.say(json!({"type": "hello"})).await;
    bens.until("welcome").await;
    world.port.catch_up().await;
    bens.until("synced").await;
    assert_eq!((bens.seqs(room), bens.seqs(second)), (vec![1, 2, 3, 4], vec![1]));
}

#[tokio::test]
async fn who_wants_an_answer_to_a_read_gets_it_once_it_is_committed() {
    let world = World::new().await;
    let (ann, ben) = (user(1), user(2));
    let room = world.conversation(&[ann, ben]).await;
    let mut bens = world.connect(ben, device(2)).await;
    world.port.away.store(true, Ordering::Relaxed);
    let read = json!({"type": "read", "ref": "r", "conversation_id": room, "seq": 1});
    bens.say(read.clone()).await;
    let refused = bens.until("error").await;
    assert_eq!((&refused["ref"], &refused["problem"]["status"]), (&json!("r"), &json!(503)));
    bens.say(json!({"type": "read", "conversation_id": room, "seq": 1})).await;
    eventually("it is taken", BOUND, async || *world.port.receipts.lock() == [(ben, room, None, Some(1))]).await;
    world.port.away.store(false, Ordering::Relaxed);
    bens.say(read).await;
    assert_eq!(bens.until("ok").await["ref"], "r");
    assert_eq!(world.port.receipts.lock().len(), 2);
}

#[tokio::test]
async fn a_log_that_is_away_is_waited_for() {
    let world = World::new().await;
    let room = world.conversation(&[user(1), user(2)]).await;
    world.port.away.store(true, Ordering::Relaxed);
    let mut client = world.open(user(1), device(1)).await;
    client.say(json!({"type": "hello"})).await;
    client.until("welcome").await;
    client.say(json!({"type": "ping"})).await;
    client.until("pong").await;
    world.port.away.store(false, Ordering::Relaxed);
    client.until("synced").await;
    assert_eq!(client.seqs(room), [1]);
}

#[tokio::test]
async fn hints_are_not_the_truth() {
    let world = World::new().await;
    let (ann, ben) = (user(1), user(2));
    let room = world.conversation(&[ann, ben]).await;
    let mut bens = world.connect(ben, device(2)).await;
    world.port.deaf.store(true, Ordering::Relaxed);
    world.say(room, ann, 3).await;
    world.port.deaf.store(false, Ordering::Relaxed);
    world.say(room, ann, 1).await;
    bens.until_seq(5).await;
    assert_eq!(bens.seqs(room), [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_new_device_begins_fifty_before_the_head() {
    let world = World::new().await;
    let ann = user(1);
    let room = world.conversation(&[ann, user(2)]).await;
    world.say(room, ann, 99).await;
    let mut first = world.connect(ann, device(1)).await;
    assert_eq!(first.seqs(room), (51..=100).collect::<Vec<_>>());
    // Its cursor is where it began, though it acked nothing.
    first.ack(room, 60).await;
    eventually("the ack is taken", BOUND, async || !world.port.receipts.lock().is_empty()).await;
    first.leave().await;
    world.say(room, ann, 100).await;
    let second = world.connect(ann, device(1)).await;
    assert_eq!(second.seqs(room), (61..=200).collect::<Vec<_>>());
    second.leave().await;
    let mut third = world.open(ann, device(1)).await;
    third
        .say(json!({"type": "hello", "ref": "h", "cursors": {room.to_string(): 198, Uuid::nil().to_string(): 3}}))
        .await;
    third.until("synced").await;
    assert_eq!(third.seqs(room), [199, 200]);
    let error = third.seen.iter().find(|frame| frame["type"] == "error").unwrap();
    assert_eq!((&error["ref"], error["problem"]["errors"].as_array().unwrap().len()), (&json!("h"), 1));
}

#[tokio::test]
async fn who_joins_and_leaves_sees_what_is_theirs() {
    let world = World::new().await;
    let (ann, ben) = (user(1), user(2));
    let room = world.conversation_with(&[ann, user(3)], History::SinceJoin).await;
    world.say(room, ann, 3).await;
    let mut bens = world.connect(ben, device(2)).await;
    assert_eq!(bens.seen.len(), 2);
    let joined = world.join(room, ben).await;
    world.say(room, ann, 1).await;
    bens.until_seq(joined + 1).await;
    let left = world.leave(room, ben).await;
    world.say(room, ann, 1).await;
    bens.until("left").await;
    assert_eq!(bens.seqs(room), [joined, joined + 1, left]);
    // Removed while away: told once.
    let again = world.join(room, ben).await;
    bens.until_seq(again).await;
    bens.leave().await;
    world.leave(room, ben).await;
    world.say(room, ann, 1).await;
    let bens = world.connect(ben, device(2)).await;
    assert_eq!((bens.count("left"), bens.seqs(room)), (1, vec![]));
    bens.leave().await;
    let bens = world.connect(ben, device(2)).await;
    assert_eq!((bens.count("left"), bens.seqs(room)), (0, vec![]));
}

#[tokio::test]
async fn what_was_before_the_join_comes_without_content_where_it_is_hidden() {
    let world = World::new().await;
    let (ann, ben) = (user(1), user(2));
    let room = world.conversation_with(&[ann, user(3)], History::SinceJoin).await;
    world.say(room, ann, 2).await;
    let joined = world.join(room, ben).await;
    world.say(room, ann, 1).await;
    let bens = world.connect(ben, device(2)).await;
    let contents: Vec<_> = bens.seen.iter().filter(|frame| frame["event"] == "message.sent").collect();
    let contents: Vec<_> =
        contents.iter().map(|frame| (frame["seq"].as_u64(), frame["data"]["content"].clone())).collect();
    assert_eq!(contents, [(Some(2), Value::Null), (Some(3), Value::Null), (Some(joined + 1), json!("no 0"))]);
}

#[tokio::test]
async fn sockets_end_when_they_must() {
    let world = World::new().await;
    let ann = user(1);
    let mut old = world.connect(ann, device(1)).await;
    let mut new = world.connect(ann, device(1)).await;
    assert_eq!(old.closed().await, close::REPLACED);
    world.auth.revocations().revoke(&[session_of(ann, device(1))]).await.unwrap();
    assert_eq!(new.closed().await, close::TOKEN);

    let mut binary = world.connect(ann, device(2)).await;
    binary.stream.send(Frame::binary(&b"x"[..])).await.unwrap();
    assert_eq!(binary.closed().await, close::PROTOCOL);
    let mut large = world.connect(ann, device(2)).await;
    large.stream.send(Frame::text("x".repeat(128 * 1024 + 1))).await.unwrap();
    assert_eq!(large.closed().await, close::PROTOCOL);
    let mut first = world.open(ann, device(2)).await;
    first.say(json!({"type": "ping"})).await;
    assert_eq!(first.closed().await, close::PROTOCOL);

    let mut other = world.connect(ann, device(3)).await;
    let (token, _) = world.auth.issue(ann, Uuid::nil(), device(3));
    other.say(json!({"type": "auth", "access_token": token})).await;
    assert_eq!(other.closed().await, close::TOKEN);
    let mut limited = world.connect(ann, device(3)).await;
    world.port.limited.store(true, Ordering::Relaxed);
    for _ in 0..100 {
        let send = json!({"type": "send", "conversation_id": ann, "message_id": Uuid::now_v7(), "content": "x"});
        limited.say(send).await;
    }
    assert_eq!(limited.until("error").await["problem"]["retry_after_s"], 1);
    assert_eq!(limited.closed().await, close::RATE_LIMIT);
    eventually("all are gone", BOUND, async || world.gateway.connections() == 0).await;
}

#[tokio::test]
async fn a_token_is_renewed_in_band_or_the_socket_ends_with_it() {
    let settings = AuthSettings { access_ttl: Duration::from_secs(2), ..AuthSettings::default() };
    let world = World::with(settings).await;
    let mut client = world.connect(user(1), device(1)).await;
    let longer = AuthSettings { access_ttl: Duration::from_mins(5), ..AuthSettings::default() };
    let keyring = platform::auth::Keyring::open(world.database.pool(), None).await.unwrap();
    let auth = platform::auth::Authenticator::new(keyring, world.auth.revocations().clone(), longer);
    let (token, _) = auth.issue(user(1), session_of(user(1), device(1)), device(1));
    client.say(json!({"type": "auth", "ref": "a", "access_token": token})).await;
    assert_eq!(client.until("ok").await["ref"], "a");
    let mut other = world.connect(user(1), device(2)).await;
    assert_eq!(other.closed().await, close::TOKEN);
    client.say(json!({"type": "ping", "ref": "p"})).await;
    assert_eq!(client.until("pong").await["ref"], "p");
}

#[tokio::test]
async fn a_server_that_drains_closes_its_sockets_and_keeps_the_cursors() {
    let world = World::new().await;
    let ann = user(1);
    let room = world.conversation(&[ann, user(2)]).await;
    let mut client = world.connect(ann, device(1)).await;
    client.ack(room, 1).await;
    client.say(json!({"type": "ping"})).await;
    client.until("pong").await;
    let gateway = world.gateway.clone();
    let draining = tokio::spawn(async move { gateway.drain(BOUND).await });
    assert_eq!(client.closed().await, close::DRAINING);
    draining.await.unwrap();
    let acked: i64 =
        sqlx::query_scalar("SELECT acked FROM state.device_cursors").fetch_one(world.database.pool()).await.unwrap();
    assert_eq!(acked, 1);
    assert!(tokio_tungstenite::connect_async(world.request(ann, device(1))).await.is_err());
}

#[tokio::test]
async fn a_device_counts_as_connected_until_it_is_gone() {
    counts_as_connected(&World::new().await).await;
}

/// By the word of the live bus, which others are told of who is away.
pub(super) async fn counts_as_connected(world: &World) {
    let known = Device { user_id: user(1), device_id: device(1) };
    let counts = async || world.port.live.connected_of(&[known]).await.unwrap().contains(&known);
    let older = world.connect(user(1), device(1)).await;
    assert!(counts().await, "it was welcomed");
    // A newer connection takes the place of the older one, which goes.
    let newer = world.connect(user(1), device(1)).await;
    drop(older);
    assert!(counts().await);
    newer.leave().await;
    eventually("it is gone", BOUND, async || !counts().await).await;
}
