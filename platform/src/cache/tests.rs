//! Answers and marks, on a server and on a cluster.

use std::sync::Arc;

use schemas::{Body, ConversationRenamed, Event, MemberJoined, Numbered, Record, Role, Topic};
use testkit::redis::{Redis as Server, RedisCluster};
use time::OffsetDateTime;

use super::*;
use crate::live::{Channel, Hint, LiveBus, RedisLive};

const LONG: Duration = Duration::from_secs(10);
const USER: Uuid = Uuid::from_u128(1);
const ROOM: Uuid = Uuid::from_u128(7);

fn place(shard: u16, position: u64) -> Position {
    Position { topic: Topic::Conversations, shard, position }
}

/// Something that happened in a conversation, told to somebody.
fn hint(channel: Channel, conversation_id: Uuid, shard: u16, position: u64, body: Body) -> Hint {
    let at = OffsetDateTime::UNIX_EPOCH;
    let record = Record {
        topic: Topic::Conversations,
        shard,
        position,
        event_id: Uuid::from_u64_pair(u64::from(shard), position),
        key: conversation_id,
        at,
        correlation: None,
        causation: None,
        trace: None,
        session: None,
        event: Event::Numbered(Numbered { conversation_id, seq: position, at, body }),
    };
    Hint { channel, record: Arc::new(record), audience: None }
}

fn renamed(shard: u16, position: u64, conversation_id: Uuid) -> Hint {
    let body = Body::Renamed(ConversationRenamed { name: "us".into(), by: USER });
    hint(Channel::Conversation(conversation_id), conversation_id, shard, position, body)
}

async fn an_answer_is_good_until_something_of_it_moves(urls: String) {
    let redis = Redis::connect_within(&urls.into(), LONG, "test:").await.unwrap();
    let (answers, live) = (Answers::new(redis.clone()), RedisLive::start(redis));
    let token = |three: u64| [place(3, three), place(4, 9)].into_iter().collect::<PositionToken>();
    let kept = |three: u64| Kept { position: token(three), body: b"{}\nand more".to_vec() };
    let other = Uuid::from_u128(8);
    let parts = [Part::Memberships(USER), Part::Conversation(ROOM), Part::Conversation(other)];
    assert_eq!(answers.get(USER, "list").await, None);
    answers.put(USER, "list", &kept(5), &parts).await;
    assert_eq!(answers.get(USER, "list").await, Some(kept(5)));
    assert_eq!(answers.get(ROOM, "list").await, None, "another one's");
    // What it has already, and what it is not made from, changes nothing.
    live.publish(vec![renamed(3, 5, ROOM), renamed(4, 9, other), renamed(3, 99, Uuid::from_u128(9))]).await;
    assert_eq!(answers.get(USER, "list").await, Some(kept(5)));
    live.publish(vec![renamed(3, 6, ROOM)]).await;
    assert_eq!(answers.get(USER, "list").await, None);
    // The mark came first: an answer that is older is no better for being kept later.
    answers.put(USER, "list", &kept(5), &parts).await;
    assert_eq!(answers.get(USER, "list").await, None);
    answers.put(USER, "list", &kept(6), &parts).await;
    assert_eq!(answers.get(USER, "list").await, Some(kept(6)));
    // Into something new, in a shard of which the answer knows nothing.
    let joined = Body::MemberJoined(MemberJoined { user_id: USER, role: Role::Member, by: USER });
    live.publish(vec![hint(Channel::User(USER), Uuid::from_u128(10), 5, 1, joined)]).await;
    assert_eq!(answers.get(USER, "list").await, None);
}

#[tokio::test]
async fn on_one_server() {
    let server = Server::start().unwrap();
    an_answer_is_good_until_something_of_it_moves(server.url()).await;
}

#[tokio::test]
async fn on_a_cluster() {
    let cluster = RedisCluster::start().unwrap();
    an_answer_is_good_until_something_of_it_moves(cluster.url()).await;
}

#[tokio::test]
async fn without_redis_there_is_none_and_nobody_waits() {
    let server = Server::start().unwrap();
    let answers = Answers::new(Redis::connect_within(&server.url().into(), LONG, "test:").await.unwrap());
    let kept = Kept { position: place(3, 1).into(), body: Vec::new() };
    answers.put(USER, "list", &kept, &[Part::Conversation(ROOM)]).await;
    assert!(answers.get(USER, "list").await.is_some());
    server.pause().unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(answers.get(USER, "list").await, None);
    answers.put(USER, "list", &kept, &[Part::Conversation(ROOM)]).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    server.resume().unwrap();
}

#[test]
fn what_cannot_be_read_is_no_answer() {
    for stored in ["", "1", "2\nc3.1\n\n", "1\nx\n\n", "1\nc3.1\nz\n{}", "1\nc3.1\nc12"] {
        assert_eq!(decode(stored.as_bytes()), None, "{stored}");
    }
}
