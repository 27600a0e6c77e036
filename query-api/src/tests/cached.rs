//! Lists that are kept in Redis for a while.

use std::time::Duration;

use http::Method;
use platform::cache::Answers;
use platform::redis::Redis;
use schemas::rest::{Conversation, Page};
use schemas::{Position, Topic};
use testkit::redis::Redis as Server;

use super::World;

#[tokio::test]
async fn a_kept_list_is_answered_until_something_newer_is_asked_for() {
    let server = Server::start().unwrap();
    let redis = Redis::connect_within(&server.url().into(), Duration::from_secs(10), "test:").await.unwrap();
    let world = World::keeping(Some(Answers::new(redis))).await;
    let (ann, ben) = (world.user("ann", None).await, world.user("ben", None).await);
    let room = world.conversation("group", "all", &[ann, ben]).await;
    let applied = |position| world.applied.post([Position { topic: Topic::Conversations, shard: 3, position }]);
    applied(1);
    let first = world.get(ann, "/v1/conversations").await;
    // Nobody says that it moved: what is kept is answered, with its position.
    world.message(room, 2, ben).await;
    applied(2);
    let again = world.get(ann, "/v1/conversations").await;
    assert_eq!((&again.body, &again.headers["position"]), (&first.body, &first.headers["position"]));
    assert_eq!(again.headers["content-type"], "application/json");
    // Who knows of more gets more, and then all do.
    let bearer = format!("Bearer {}", world.token(ann));
    let headers = [("authorization", bearer.as_str()), ("min-position", "c3.2")];
    let newer = world.send(Method::GET, "/v1/conversations", &headers).await;
    assert_eq!(newer.headers["position"], "c3.2");
    assert_eq!(newer.is::<Page<Conversation>>().items[0].unread, 1);
    assert_eq!(world.get(ann, "/v1/conversations").await.body, newer.body);
    // Another limit, another user, and a list that goes on are answers of their own.
    assert_eq!(world.get(ben, "/v1/conversations").await.is::<Page<Conversation>>().items[0].unread, 0);
    world.conversation("group", "all", &[ann, ben]).await;
    let page: Page<Conversation> = world.get(ann, "/v1/conversations?limit=1").await.is();
    assert!(page.next_cursor.is_some());
    world.message(room, 3, ben).await;
    let page: Page<Conversation> = world.get(ann, "/v1/conversations?limit=1").await.is();
    assert_eq!((page.items[0].conversation_id, page.items[0].unread), (room, 2));
}
