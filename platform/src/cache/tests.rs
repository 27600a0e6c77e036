//! Answers and marks, on a server and on a cluster.

use std::sync::Arc;

use schemas::{Body, ConversationRenamed, Event, Numbered, Record, SessionChanged, Topic};
use testkit::redis::{Redis as Server, RedisCluster};
use time::OffsetDateTime;

use super::*;

pub(super) const LONG: Duration = Duration::from_mins(1);
const USER: Uuid = Uuid::from_u128(1);
const OWNER: Owner = Owner::User(USER);
/// In the fourth of five shards.
const ROOM: Uuid = Uuid::from_u128(8);

/// The shards of these tests: by the last digits of an id.
pub(super) fn by_number(shards: u16) -> ShardOf {
    Arc::new(move |id| u16::try_from(id.as_u128() % u128::from(shards)).expect("less than the shards"))
}

fn place(topic: Topic, shard: u16, position: u64) -> Position {
    Position { topic, shard, position }
}

/// How far the conversations' third shard and the users' first have got.
fn at(three: u64, users: u64) -> PositionToken {
    [place(Topic::Conversations, 3, three), place(Topic::Users, 1, users)].into_iter().collect()
}

fn record(shard: u16, position: u64, key: Uuid, event: Event) -> Arc<Record> {
    Arc::new(Record {
        topic: event.topic(),
        shard,
        position,
        event_id: Uuid::from_u64_pair(u64::from(shard), position),
        key,
        at: OffsetDateTime::UNIX_EPOCH,
        correlation: None,
        causation: None,
        trace: None,
        session: None,
        event,
    })
}

/// Something that happened in a conversation.
pub(super) fn renamed(shard: u16, position: u64, conversation_id: Uuid) -> Arc<Record> {
    let body = Body::Renamed(ConversationRenamed { name: "us".into(), by: USER });
    let at = OffsetDateTime::UNIX_EPOCH;
    let event = Event::Numbered(Numbered { conversation_id, seq: position, at, body });
    record(shard, position, conversation_id, event)
}

fn revoked(position: u64, user_id: Uuid) -> Arc<Record> {
    let session = SessionChanged {
        user_id,
        session_id: Uuid::nil(),
        device_id: Uuid::nil(),
        device_name: None,
        address: None,
        user_agent: None,
        at: OffsetDateTime::UNIX_EPOCH,
    };
    record(1, position, user_id, Event::SessionRevoked(session))
}

async fn redis(urls: String) -> Redis {
    Redis::connect_within(&urls.into(), LONG, "test:").await.unwrap()
}

fn kept(as_of: PositionToken) -> Kept {
    let parts = vec![Part::Sessions(USER), Part::Conversation(ROOM)];
    Kept { as_of, parts, body: b"{}\nand more".to_vec() }
}

async fn an_answer_is_good_while_nothing_of_it_moved(urls: String) {
    let redis = redis(urls).await;
    let (answers, marks) = (Answers::new(redis.clone(), by_number(5)), Marks::new(redis));
    let get = async |now| answers.get(OWNER, "list", &now).await;
    assert_eq!(get(at(5, 9)).await, None);
    answers.put(OWNER, "list", &kept(at(5, 9))).await;
    assert_eq!(get(at(5, 9)).await, Some(kept(at(5, 9))));
    assert_eq!(answers.get(Owner::User(ROOM), "list", &at(5, 9)).await, None, "another one's");
    // Something is applied, and nobody says what it moved.
    assert_eq!(get(at(6, 9)).await, None);
    // What it is not made from changes nothing.
    marks.set(&[renamed(3, 6, Uuid::from_u128(3)), renamed(3, 7, Uuid::from_u128(13))]).await;
    assert_eq!(get(at(7, 9)).await, Some(kept(at(5, 9))));
    assert_eq!(get(at(8, 9)).await, None, "the marks have not got there");
    marks.set(&[renamed(3, 8, ROOM), renamed(3, 9, Uuid::from_u128(3)), revoked(10, Uuid::from_u128(6))]).await;
    assert_eq!(get(at(7, 10)).await, None, "a mark is ahead of what is applied");
    assert_eq!(get(at(9, 9)).await, None);
    // The mark came first: an answer that is older is no better for being kept later.
    answers.put(OWNER, "list", &kept(at(7, 9))).await;
    assert_eq!(get(at(9, 9)).await, None);
    answers.put(OWNER, "list", &kept(at(8, 9))).await;
    assert_eq!(get(at(9, 10)).await, Some(kept(at(8, 9))));
    marks.set(&[revoked(11, USER)]).await;
    assert_eq!(get(at(9, 11)).await, None);
    // A shard of which the answer knows nothing may have moved memberships, and nothing else of it.
    let first = [place(Topic::Conversations, 2, 1)].into_iter().collect::<PositionToken>();
    answers.put(OWNER, "list", &kept(at(9, 11))).await;
    assert_eq!(get(first.clone()).await, None);
    marks.set(&[renamed(2, 1, Uuid::from_u128(2))]).await;
    assert_eq!(get(first).await, Some(kept(at(9, 11))));
}

#[tokio::test]
async fn on_one_server() {
    let server = Server::start().unwrap();
    an_answer_is_good_while_nothing_of_it_moved(server.url()).await;
}

#[tokio::test]
async fn on_a_cluster() {
    let cluster = RedisCluster::start().unwrap();
    an_answer_is_good_while_nothing_of_it_moved(cluster.url()).await;
}

#[tokio::test]
async fn marks_that_are_lost_prove_nothing() {
    let server = Server::start().unwrap();
    let redis = redis(server.url()).await;
    let (answers, marks) = (Answers::new(redis.clone(), by_number(5)), Marks::new(redis));
    let other = |position| renamed(3, position, Uuid::from_u128(3));
    let good = async |as_of, now| {
        answers.put(OWNER, "list", &kept(at(as_of, 1))).await;
        answers.get(OWNER, "list", &at(now, 1)).await.is_some()
    };
    marks.set(&[other(1), other(2)]).await;
    // One who did not get its mark of 3 set goes on.
    marks.set(&[other(4)]).await;
    assert!(!good(2, 4).await);
    assert!(good(3, 4).await);
    // One who takes over tells it, and what is told already.
    marks.set(&[other(2), renamed(3, 3, ROOM)]).await;
    assert!(!good(2, 4).await);
    assert!(good(3, 4).await);
    assert!(!good(1, 2).await, "of it nobody knows more than that it moved later");
    marks.set(&[renamed(3, 1, ROOM)]).await;
    assert!(!good(2, 4).await, "a mark never falls");
    server.flush().unwrap();
    assert!(good(4, 4).await, "nothing was applied since");
    assert!(!good(3, 4).await);
    marks.set(&[other(5)]).await;
    assert!(!good(3, 5).await);
    assert!(good(4, 5).await);
}

#[tokio::test]
async fn of_what_is_long_ago_nothing_is_known() {
    let server = Server::start().unwrap();
    let redis = redis(server.url()).await;
    let (answers, marks) = (Answers::new(redis.clone(), by_number(5)), Marks::new(redis.clone()));
    let many: Vec<_> = (1..=10_000).map(|position| renamed(3, position, Uuid::from_u128(position.into()))).collect();
    for batch in many.chunks(1_000) {
        marks.set(batch).await;
    }
    let key = marks::key(&redis, Topic::Conversations, 3);
    let left: u64 = redis.ask(&key, redis::cmd("ZCARD").arg(&key), LONG).await.unwrap();
    assert_eq!(left, 4096 + 2);
    for (as_of, expected) in [(5_903, false), (5_904, true), (9_999, true)] {
        answers.put(OWNER, "list", &kept(at(as_of, 1))).await;
        assert_eq!(answers.get(OWNER, "list", &at(10_000, 1)).await.is_some(), expected, "{as_of}");
    }
}

#[tokio::test]
async fn without_redis_there_is_none_and_nobody_waits() {
    let server = Server::start().unwrap();
    let redis = redis(server.url()).await;
    let (answers, marks) = (Answers::new(redis.clone(), by_number(5)), Marks::new(redis));
    answers.put(OWNER, "list", &kept(at(1, 1))).await;
    assert!(answers.get(OWNER, "list", &at(1, 1)).await.is_some());
    server.pause().unwrap();
    let gone_on = async {
        assert_eq!(answers.get(OWNER, "list", &at(1, 1)).await, None);
        answers.put(OWNER, "list", &kept(at(1, 1))).await;
        marks.set(&[renamed(3, 2, ROOM)]).await;
    };
    tokio::time::timeout(LONG, gone_on).await.unwrap();
    server.resume().unwrap();
}

#[test]
fn what_cannot_be_read_is_no_answer() {
    for stored in ["", "2", "1\nc3.1\n\n{}", "2\nx\n\n", "2\nc3.1\nz\n{}", "2\nc3.1\nc12\n{}", "2\nc3.1\n\n{}"] {
        assert_eq!(decode(stored.as_bytes()), None, "{stored}");
    }
    assert_eq!(decode(&encode(&kept(at(3, 4)))), Some(kept(at(3, 4))));
}
