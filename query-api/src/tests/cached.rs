//! First pages that are kept in Redis for a while.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use platform::cache::{Answers, Marks};
use platform::redis::Redis;
use schemas::rest::{Conversation, Member, Page, Session};
use schemas::{
    Body, ConversationRenamed, Event, MemberLeft, Numbered, Position, Record, SessionChanged, Topic, UserProfileChanged,
};
use testkit::redis::Redis as Server;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Answered, SESSION, World, at};

/// The only shard that anything is in.
const SHARD: u16 = 3;

/// A world where answers are kept, and what happened is told.
struct Setup {
    world: World,
    marks: Marks,
    server: Server,
}

impl Setup {
    async fn new() -> Self {
        let server = Server::start().unwrap();
        let redis = Redis::connect_within(&server.url().into(), Duration::from_secs(10), "test:").await.unwrap();
        let world = World::keeping(Some(Answers::new(redis.clone(), Arc::new(|_| SHARD)))).await;
        Self { world, marks: Marks::new(redis), server }
    }

    fn applied(&self, topic: Topic, position: u64) {
        self.world.applied.post([Position { topic, shard: SHARD, position }]);
    }

    /// Tells what happened at a position, once it is applied.
    async fn happened(&self, position: u64, key: Uuid, event: Event) {
        self.applied(event.topic(), position);
        let record = Record {
            topic: event.topic(),
            shard: SHARD,
            position,
            event_id: Uuid::now_v7(),
            key,
            at: OffsetDateTime::UNIX_EPOCH,
            correlation: None,
            causation: None,
            trace: None,
            session: None,
            event,
        };
        self.marks.set(&[Arc::new(record)]).await;
    }

    async fn at_least(&self, user: Uuid, path: &str, position: &str) -> Answered {
        let bearer = format!("Bearer {}", self.world.token(user));
        self.world.send(Method::GET, path, &[("authorization", &bearer), ("min-position", position)]).await
    }
}

fn numbered(conversation_id: Uuid, body: Body) -> Event {
    Event::Numbered(Numbered { conversation_id, seq: 1, at: OffsetDateTime::UNIX_EPOCH, body })
}

fn renamed(conversation_id: Uuid) -> Event {
    numbered(conversation_id, Body::Renamed(ConversationRenamed { name: "us".into(), by: Uuid::nil() }))
}

fn session(user_id: Uuid, session_id: Uuid) -> SessionChanged {
    SessionChanged {
        user_id,
        session_id,
        device_id: Uuid::nil(),
        device_name: None,
        address: None,
        user_agent: None,
        at: OffsetDateTime::UNIX_EPOCH,
    }
}

#[tokio::test]
async fn a_kept_list_is_answered_while_none_of_it_moves() {
    let setup = Setup::new().await;
    let world = &setup.world;
    let (ann, ben) = (world.user("ann", None).await, world.user("ben", None).await);
    let room = world.conversation("group", "all", &[ann, ben]).await;
    setup.applied(Topic::Conversations, 1);
    let first = world.get(ann, "/v1/conversations").await;
    // It would look otherwise by now, but all that happened did so elsewhere.
    world.message(room, 2, ben).await;
    setup.happened(2, Uuid::nil(), renamed(Uuid::nil())).await;
    let again = world.get(ann, "/v1/conversations").await;
    assert_eq!((&again.body, &again.headers["position"]), (&first.body, &first.headers["position"]));
    assert_eq!(again.headers["content-type"], "application/json");
    // Who knows of more gets more, and then all do.
    let newer = setup.at_least(ann, "/v1/conversations", "c3.2").await;
    assert_eq!(newer.headers["position"], "c3.2");
    assert_eq!(newer.is::<Page<Conversation>>().items[0].unread, 1);
    assert_eq!(world.get(ann, "/v1/conversations").await.body, newer.body);
    // What moved is read.
    world.message(room, 3, ben).await;
    setup.happened(3, room, renamed(room)).await;
    assert_eq!(world.get(ann, "/v1/conversations").await.is::<Page<Conversation>>().items[0].unread, 2);
    // Another limit, another user, and a list that goes on are answers of their own.
    assert_eq!(world.get(ben, "/v1/conversations").await.is::<Page<Conversation>>().items[0].unread, 0);
    world.conversation("group", "all", &[ann, ben]).await;
    let page: Page<Conversation> = world.get(ann, "/v1/conversations?limit=1").await.is();
    assert!(page.next_cursor.is_some());
    world.message(room, 4, ben).await;
    let page: Page<Conversation> = world.get(ann, "/v1/conversations?limit=1").await.is();
    assert_eq!((page.items[0].conversation_id, page.items[0].unread), (room, 3));
}

#[tokio::test]
async fn kept_sessions_are_answered_until_one_begins_is_seen_or_ends() {
    let setup = Setup::new().await;
    let world = &setup.world;
    let ann = world.user("ann", None).await;
    let begin = async |session_id: Uuid| {
        sqlx::query("INSERT INTO read.sessions VALUES ($1, $2, $3, 'phone', $4, $4)")
            .bind(session_id)
            .bind(ann)
            .bind(Uuid::now_v7())
            .bind(at(1))
            .execute(world.pool())
            .await
            .unwrap();
    };
    let sessions = async || -> Vec<(Uuid, bool)> {
        let page: Page<Session> = world.get(ann, "/v1/sessions").await.is();
        page.items.iter().map(|session| (session.session_id, session.current)).collect()
    };
    begin(SESSION).await;
    setup.happened(1, ann, Event::SessionStarted(session(ann, SESSION))).await;
    assert_eq!(sessions().await, [(SESSION, true)]);
    let other = Uuid::now_v7();
    begin(other).await;
    // Of a shard's other users it shows nothing.
    setup.happened(2, Uuid::nil(), Event::SessionRevoked(session(Uuid::nil(), SESSION))).await;
    assert_eq!(sessions().await, [(SESSION, true)], "it is kept");
    setup.happened(3, ann, Event::SessionStarted(session(ann, other))).await;
    assert_eq!(sessions().await, [(other, false), (SESSION, true)]);
    sqlx::query("DELETE FROM read.sessions WHERE session_id = $1").bind(other).execute(world.pool()).await.unwrap();
    setup.happened(4, ann, Event::SessionRevoked(session(ann, other))).await;
    assert_eq!(sessions().await, [(SESSION, true)]);
    let answered = setup.at_least(ann, "/v1/sessions", "u3.4, c3.77").await;
    assert_eq!(answered.headers["position"], "u3.4");
    // Forgotten, it is read.
    begin(other).await;
    setup.server.flush().unwrap();
    assert_eq!(sessions().await.len(), 2);
}

#[tokio::test]
async fn kept_members_are_answered_to_members_until_one_comes_goes_or_is_called_otherwise() {
    let setup = Setup::new().await;
    let world = &setup.world;
    let [ann, ben, cleo] =
        [world.user("ann", None).await, world.user("ben", None).await, world.user("cleo", None).await];
    let room = world.conversation("group", "all", &[ann, ben]).await;
    let path = format!("/v1/conversations/{room}/members");
    let names = async |user: Uuid| -> Vec<Option<String>> {
        let page: Page<Member> = world.get(user, &path).await.is();
        page.items.into_iter().map(|member| member.display_name).collect()
    };
    let call = async |name: &str| {
        sqlx::query("UPDATE read.users SET display_name = $2 WHERE user_id = $1")
            .bind(ann)
            .bind(name)
            .execute(world.pool())
            .await
            .unwrap();
    };
    let profile = |user_id| {
        let (display_name, avatar_file_id, at) = (None, None, OffsetDateTime::UNIX_EPOCH);
        Event::UserProfileChanged(UserProfileChanged { user_id, display_name, avatar_file_id, at })
    };
    setup.applied(Topic::Conversations, 1);
    setup.applied(Topic::Users, 1);
    assert_eq!(names(ann).await, [None, None]);
    // One answer for all of them, which messages and other people leave as it is; and for nobody else.
    call("Ann").await;
    setup.happened(2, room, renamed(room)).await;
    setup.happened(2, cleo, profile(cleo)).await;
    assert_eq!(names(ben).await, [None, None], "it is kept");
    world.get(cleo, &path).await.is_problem(404, None);
    setup.happened(3, ann, profile(ann)).await;
    assert_eq!(names(ben).await, [Some("Ann".to_owned()), None]);
    // Who knows of a newer profile, or of more in the conversation, gets what is newer; other conversations' do not count.
    call("Anna").await;
    assert_eq!(names(ben).await[0].as_deref(), Some("Ann"), "it is kept");
    setup.applied(Topic::Users, 4);
    let newer = setup.at_least(ben, &path, "u3.4, c2.9").await;
    assert_eq!(newer.headers["position"], "c3.2");
    assert_eq!(newer.is::<Page<Member>>().items[0].display_name.as_deref(), Some("Anna"));
    // Who is removed is told so, and the others see it.
    setup.happened(4, Uuid::nil(), profile(Uuid::nil())).await;
    world.leave(room, ben, 3).await;
    let left = numbered(room, Body::MemberLeft(MemberLeft { user_id: ben, by: ann }));
    setup.happened(3, room, left).await;
    world.get(ben, &path).await.is_problem(403, None);
    assert_eq!(names(ann).await, [Some("Anna".to_owned())]);
    world.get(ben, &path).await.is_problem(403, None);
}

#[tokio::test]
async fn who_was_removed_is_not_admitted_though_nobody_could_mark_it() {
    let setup = Setup::new().await;
    let world = &setup.world;
    let [ann, ben] = [world.user("ann", None).await, world.user("ben", None).await];
    let room = world.conversation("group", "all", &[ann, ben]).await;
    let path = format!("/v1/conversations/{room}/members");
    setup.applied(Topic::Conversations, 1);
    assert_eq!(world.get(ben, &path).await.is::<Page<Member>>().items.len(), 2);
    assert_eq!(world.get(ben, &path).await.is::<Page<Member>>().items.len(), 2);
    world.leave(room, ben, 2).await;
    setup.applied(Topic::Conversations, 2);
    world.get(ben, &path).await.is_problem(403, None);
    // Nor once the marks go on without it.
    setup.happened(3, Uuid::nil(), renamed(Uuid::nil())).await;
    world.get(ben, &path).await.is_problem(403, None);
}
