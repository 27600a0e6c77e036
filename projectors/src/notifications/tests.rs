//! From what happens to who is told, over real sockets: a push service and webhooks of the tests' own.

use std::sync::Arc;
use std::time::Duration;

use platform::auth::Keyring;
use platform::bus::{Backfill, Bus};
use platform::config::NotificationSettings;
use platform::live::{Connected, InProcessLive, LiveBus};
use platform::push::PushTarget;
use schemas::{Position, Role};
use serde_json::Value;
use testkit::receivers::{Browser, Manner, PushService, Webhook};
use testkit::{Database, eventually};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::webhooks::{self, WebhookError};
use super::*;
use crate::testing::{Keyed, Member, MemoryLog, Room, SHARDS, World, ann, applied_all, ben, cleo, registered, session};

const BOUND: Duration = Duration::from_secs(30);

/// A process that projects and delivers, and those it tells.
struct Scene {
    world: World,
    database: Database,
    keyring: Keyring,
    live: Arc<InProcessLive>,
    pushes: PushService,
    hook: Webhook,
    settings: NotificationSettings,
    member: Option<Member>,
    courier: Option<DropGuard>,
}

fn settings() -> NotificationSettings {
    NotificationSettings {
        delay: Duration::ZERO,
        max_age: Duration::from_hours(1),
        content: false,
        contact: Some("mailto:admin@example.org".to_owned()),
        anywhere: true,
        retry: Duration::from_millis(20),
        attempts: 3,
    }
}

impl Scene {
    async fn new() -> Self {
        Self::with(settings()).await
    }

    async fn with(settings: NotificationSettings) -> Self {
        let database = Database::new().await;
        let mut scene = Self {
            world: World::new(),
            keyring: Keyring::open(database.pool(), None).await.unwrap(),
            database,
            live: Arc::default(),
            pushes: PushService::start().await.unwrap(),
            hook: Webhook::start().await.unwrap(),
            settings,
            member: None,
            courier: None,
        };
        scene.member = Some(Member::start(&scene.world, scene.database.pool()));
        scene.deliver();
        scene
    }

    /// Begins to deliver, in the place of whoever did.
    fn deliver(&mut self) {
        let stop = CancellationToken::new();
        let parts = Parts {
            pool: self.database.pool().clone(),
            live: self.live.clone(),
            keyring: self.keyring.clone(),
            settings: self.settings.clone(),
            schema_base: "https://chat.example.org".to_owned(),
        };
        tokio::spawn(deliver(parts, stop.clone()).unwrap());
        self.courier = Some(stop.drop_guard());
    }

    /// A moment ago, as events of the tests are not by themselves.
    async fn append(&self, event: Keyed) -> Uuid {
        let mut record = (*self.world.log.append(event)).clone();
        record.at = OffsetDateTime::now_utc();
        let record = Arc::new(record);
        self.world.bus.publish(&[Arc::clone(&record)]).await.unwrap();
        record.event_id
    }

    async fn room(&self, id: u128) -> Room {
        let mut room = Room::new(id);
        self.append(room.created(&[(ann(), Role::Owner), (ben(), Role::Member), (cleo(), Role::Member)])).await;
        room
    }

    /// A browser of somebody's, whose session is on this device.
    async fn browser(&self, user: Uuid, number: u128) -> Arc<Browser> {
        self.browser_at(&self.pushes, user, number).await
    }

    async fn browser_at(&self, service: &PushService, user: Uuid, number: u128) -> Arc<Browser> {
        let browser = service.subscribe(&self.keyring.push().public());
        self.append(session(user.as_u128(), number, Event::SessionStarted)).await;
        let json = browser.subscription();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let keys = &json["keys"];
        let target =
            PushTarget::new(&text(&json["endpoint"]), &text(&keys["p256dh"]), &text(&keys["auth"]), true).unwrap();
        let id = Uuid::from_u128(number);
        sqlx::query(
            "INSERT INTO state.push_subscriptions \
                    (user_id, subscription_id, session_id, sealed, endpoint_hash, service, expires_at) \
             VALUES ($1, $2, $2, $3, $4, $5, now() + interval '1 day')",
        )
        .bind(user)
        .bind(id)
        .bind(target.seal(&self.keyring, user, id))
        .bind(&target.endpoint_hash()[..])
        .bind(target.service())
        .execute(self.database.pool())
        .await
        .unwrap();
        browser
    }

    async fn webhook(&self, types: &[&str]) -> (Uuid, String) {
        let types: Vec<String> = types.iter().map(|name| (*name).to_owned()).collect();
        let heads: Vec<Position> = self.world.log.heads();
        webhooks::add(self.database.pool(), &self.keyring, self.hook.url(), &types, None, &heads).await.unwrap()
    }

    /// Waits until all that is published was looked at and nothing waits any more.
    async fn settled(&self) {
        let heads = self.world.log.heads();
        eventually("everything was looked at", BOUND, async || {
            let marks: Vec<(i16, i16, i64)> =
                sqlx::query_as("SELECT topic, shard, position FROM state.notification_marks")
                    .fetch_all(self.database.pool())
                    .await
                    .unwrap();
            heads
                .iter()
                .filter(|head| head.position > 0)
                .all(|head| marks.contains(&(head.topic.code(), smallint(head.shard), bigint(head.position))))
        })
        .await;
        let waiting =
            "SELECT (SELECT count(*) FROM state.notifiable_messages) + (SELECT count(*) FROM state.deliveries)";
        eventually("nothing waits", BOUND, async || self.number(waiting).await == 0).await;
        assert_eq!(self.pushes.faults(), [""; 0]);
    }

    async fn number(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(self.database.pool()).await.unwrap()
    }

    /// The messages that a browser read, by number.
    fn read_by(&self, browser: &Browser) -> Vec<u64> {
        let endpoint = browser.subscription()["endpoint"].clone();
        let pushed = self.pushes.pushed().into_iter().filter(|pushed| endpoint == pushed.endpoint.as_str());
        pushed.map(|pushed| pushed.message["seq"].as_u64().unwrap()).collect()
    }
}

fn connected(user_id: Uuid, number: u128) -> Connected {
    Connected { user_id, device_id: Uuid::from_u128(number + 100), connection_id: Uuid::from_u128(1) }
}

#[tokio::test]
async fn who_is_away_is_pushed_once_and_nobody_else() {
    let scene = Scene::new().await;
    let (anns, bens, cleos) =
        (scene.browser(ann(), 11).await, scene.browser(ben(), 12).await, scene.browser(cleo(), 13).await);
    // Cleo is connected, on another device than the one with the browser.
    scene.append(session(3, 14, Event::SessionStarted)).await;
    scene.live.connected(connected(cleo(), 14)).await;
    let mut room = scene.room(5).await;
    let event_id = scene.append(room.said(ann())).await;
    scene.settled().await;
    assert_eq!(scene.read_by(&bens), [2]);
    assert_eq!((scene.read_by(&anns), scene.read_by(&cleos)), (vec![], vec![]));
    let pushed = scene.pushes.pushed().remove(0);
    let expected = serde_json::json!({
        "type": "message.sent", "event_id": event_id, "conversation_id": room.id, "seq": 2,
        "message_id": Uuid::from_u64_pair(5, 2), "sender_id": ann(), "sent_at": pushed.message["sent_at"],
    });
    assert_eq!(pushed.message, expected, "and nothing that was said");
    assert_eq!(pushed.topic.len(), 22);
    // She goes, and is told of what comes then.
    scene.live.disconnected(connected(cleo(), 14)).await;
    scene.append(room.said(ann())).await;
    scene.append(room.left(ben())).await;
    scene.append(room.said(ann())).await;
    scene.settled().await;
    assert_eq!(scene.read_by(&cleos), [3, 5]);
    let bens = scene.read_by(&bens);
    assert!(bens == [2, 3] || bens == [2], "he left, and may have been before it was told: {bens:?}");
}

#[tokio::test]
async fn what_was_read_deleted_or_logged_out_meanwhile_is_not_pushed() {
    let mut scene = Scene::with(NotificationSettings { delay: Duration::from_hours(1), ..settings() }).await;
    let (bens, cleos) = (scene.browser(ben(), 12).await, scene.browser(cleo(), 13).await);
    let mut room = scene.room(5).await;
    for _ in 0..2 {
        scene.append(room.said(ann())).await;
    }
    let waiting = "SELECT count(*) FROM state.deliveries WHERE attempts = 0";
    eventually("they wait", BOUND, async || scene.number(waiting).await == 4).await;
    // Ben reads the first, the second is deleted; Cleo logs out.
    scene.append(room.read(ben(), 2, 2)).await;
    applied_all(&scene.world, scene.database.pool()).await;
    for change in [
        "UPDATE read.timeline SET content = NULL WHERE seq = 3",
        "INSERT INTO state.revoked_sessions VALUES ('00000000-0000-0000-0000-00000000000d')",
        "UPDATE state.deliveries SET due_at = now()",
    ] {
        sqlx::query(change).execute(scene.database.pool()).await.unwrap();
    }
    scene.deliver();
    scene.settled().await;
    assert_eq!((scene.read_by(&bens), scene.read_by(&cleos)), (vec![], vec![]));
    assert_eq!(scene.number("SELECT count(*) FROM state.dead_deliveries").await, 0);
}

#[tokio::test]
async fn the_settings_may_have_it_told_what_was_said_and_until_when() {
    let told = NotificationSettings { content: true, max_age: Duration::from_mins(10), ..settings() };
    let scene = Scene::with(told).await;
    let bens = scene.browser(ben(), 12).await;
    let mut room = scene.room(5).await;
    // Long ago, as events of the tests are by themselves.
    scene.world.append(room.said(ann())).await;
    let mut record = (*scene.world.log.append(room.said(ann()))).clone();
    record.at = OffsetDateTime::now_utc() - Duration::from_mins(11);
    scene.world.bus.publish(&[Arc::new(record)]).await.unwrap();
    scene.append(room.said(ann())).await;
    scene.settled().await;
    assert_eq!(scene.read_by(&bens), [4]);
    assert_eq!(scene.pushes.pushed()[0].message["content"], "word 4");
}

#[tokio::test]
async fn a_browser_that_is_gone_is_forgotten_and_one_that_is_busy_asked_again() {
    let scene = Scene::new().await;
    let bens = scene.browser(ben(), 12).await;
    let mut room = scene.room(5).await;
    scene.pushes.behave(Manner::Answers(429));
    scene.append(room.said(ann())).await;
    eventually("it is tried", BOUND, async || !scene.pushes.pushed().is_empty()).await;
    scene.pushes.behave(Manner::Answers(201));
    scene.settled().await;
    let read = scene.read_by(&bens);
    assert!(read.len() >= 2 && read.iter().all(|seq| *seq == 2), "{read:?}");
    let ids: HashSet<String> = scene.pushes.pushed().iter().map(|one| one.message["event_id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "repeats are known by their id");
    // What it takes from nobody is given up at once.
    scene.pushes.behave(Manner::Answers(413));
    scene.append(room.said(ann())).await;
    scene.settled().await;
    let dead = webhooks::failed(scene.database.pool(), None, 10).await.unwrap();
    assert_eq!(dead.iter().map(|dead| (dead.attempts, dead.error.as_str())).collect::<Vec<_>>(), [(1, "answered 413")]);
    scene.pushes.behave(Manner::Answers(410));
    scene.append(room.said(ann())).await;
    scene.settled().await;
    assert_eq!(scene.number("SELECT count(*) FROM state.push_subscriptions").await, 0);
}

#[tokio::test]
async fn no_browser_in_a_private_network_is_called_unless_it_may_be() {
    let scene = Scene::with(NotificationSettings { anywhere: false, ..settings() }).await;
    scene.browser(ben(), 12).await;
    let mut room = scene.room(5).await;
    scene.append(room.said(ann())).await;
    scene.settled().await;
    assert!(scene.pushes.pushed().is_empty());
    let dead = webhooks::failed(scene.database.pool(), None, 10).await.unwrap();
    assert_eq!(dead[0].error, "its endpoint is not on the public internet");
}

#[tokio::test]
async fn webhooks_are_told_what_they_asked_for_from_when_they_were_made() {
    let scene = Scene::new().await;
    scene.append(registered(7, "before")).await;
    let (id, secret) = scene.webhook(&["user.registered", "message.sent"]).await;
    let mut room = scene.room(5).await;
    let expected = [scene.append(registered(8, "gus")).await, scene.append(room.said(ann())).await];
    scene.settled().await;
    let told = scene.hook.told();
    assert_eq!(told.iter().map(|told| told.id).collect::<HashSet<_>>(), HashSet::from(expected));
    assert!(told.len() == 2 && told.iter().all(|told| told.is_signed_by(&secret)));
    let event = told.iter().find(|told| told.id == expected[1]).unwrap().event();
    assert_eq!((&event["id"], &event["type"]), (&expected[1].to_string().into(), &"message.sent".into()));
    assert_eq!(event["dataschema"], "https://chat.example.org/schemas/message.sent/1.json");
    assert_eq!(event["data"]["content"], "word 2");
    let sealed: Vec<u8> =
        sqlx::query_scalar("SELECT secret FROM state.webhooks").fetch_one(scene.database.pool()).await.unwrap();
    assert!(!sealed.windows(8).any(|part| secret.as_bytes().windows(8).any(|clear| clear == part)));
    // Switched off it is told nothing of what happens then.
    assert!(webhooks::set_enabled(scene.database.pool(), id, false).await.unwrap());
    scene.append(registered(9, "meanwhile")).await;
    scene.settled().await;
    assert!(webhooks::set_enabled(scene.database.pool(), id, true).await.unwrap());
    let last = scene.append(registered(10, "hal")).await;
    scene.settled().await;
    assert_eq!(
        scene.hook.told().iter().map(|told| told.id).filter(|id| !expected.contains(id)).collect::<Vec<_>>(),
        [last]
    );
    assert!(webhooks::remove(scene.database.pool(), id).await.unwrap());
    assert!(!webhooks::remove(scene.database.pool(), id).await.unwrap());
}

#[tokio::test]
async fn what_fails_is_given_up_in_the_end_and_tried_again_when_told() {
    let scene = Scene::new().await;
    let (id, secret) = scene.webhook(&["user.registered"]).await;
    scene.hook.behave(Manner::Answers(500));
    let event_id = scene.append(registered(8, "gus")).await;
    scene.settled().await;
    assert_eq!(scene.hook.told().len(), 3, "as often as the settings say");
    let pool = scene.database.pool();
    let dead = webhooks::failed(pool, Some(id), 10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].event_id, dead[0].attempts, dead[0].error.as_str()), (event_id, 3, "answered 500"));
    assert_eq!(webhooks::list(pool).await.unwrap()[0].failed, 1);
    assert_eq!(webhooks::retry(pool, Some(Uuid::nil())).await.unwrap(), 0);
    scene.hook.behave(Manner::Answers(204));
    assert_eq!(webhooks::retry(pool, Some(event_id)).await.unwrap(), 1);
    scene.settled().await;
    let told = scene.hook.told();
    assert!(told.len() == 4 && told.iter().all(|told| told.id == event_id && told.is_signed_by(&secret)));
    assert!(webhooks::failed(pool, None, 10).await.unwrap().is_empty());
    // One that says that it is gone is switched off.
    scene.hook.behave(Manner::Answers(410));
    scene.append(registered(9, "ida")).await;
    scene.settled().await;
    assert!(!webhooks::list(pool).await.unwrap()[0].enabled);
}

#[tokio::test]
async fn a_receiver_that_hangs_or_wants_time_holds_up_no_other() {
    let mut scene = Scene::new().await;
    let slow = Webhook::start().await.unwrap();
    slow.behave(Manner::Hangs);
    let heads = scene.world.log.heads();
    let types = ["user.registered".to_owned()];
    webhooks::add(scene.database.pool(), &scene.keyring, slow.url(), &types, None, &heads).await.unwrap();
    scene.webhook(&["user.registered"]).await;
    for user in 20..60 {
        scene.append(registered(user, "somebody")).await;
    }
    eventually("the other is told all", BOUND, async || scene.hook.told().len() == 40).await;
    assert!(slow.told().len() <= 4, "{}", slow.told().len());
    // Whoever dies with deliveries under way is followed by one that sends them again, under the same ids.
    let before: HashSet<Uuid> = slow.told().iter().map(|told| told.id).collect();
    assert!(!before.is_empty());
    drop(scene.courier.take());
    slow.behave(Manner::Answers(204));
    sqlx::query("UPDATE state.deliveries SET due_at = now()").execute(scene.database.pool()).await.unwrap();
    scene.deliver();
    scene.settled().await;
    let all = slow.told();
    assert_eq!(all.iter().map(|told| told.id).collect::<HashSet<_>>().len(), 40);
    assert!(before.iter().all(|id| all.iter().filter(|told| told.id == *id).count() >= 2));
    assert_eq!(scene.hook.told().len(), 40);
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_gets_it() {
    let scene = Scene::new().await;
    scene.webhook(&["user.registered"]).await;
    scene.hook.behave(Manner::Later(429, 3600));
    scene.append(registered(8, "gus")).await;
    let later =
        "SELECT count(*) FROM state.deliveries WHERE due_at > now() + interval '50 minutes' AND error = 'answered 429'";
    eventually("it is put off", BOUND, async || scene.number(later).await == 1).await;
    assert_eq!(scene.hook.told().len(), 1);
}

#[tokio::test]
async fn nothing_is_told_again_by_a_rebuild_or_by_lost_checkpoints() {
    let mut scene = Scene::new().await;
    let bens = scene.browser(ben(), 12).await;
    scene.webhook(&["message.sent"]).await;
    let mut room = scene.room(5).await;
    for _ in 0..3 {
        scene.append(room.said(ann())).await;
    }
    scene.settled().await;
    let told = (scene.read_by(&bens).len(), scene.hook.told().len());
    assert_eq!(told, (3, 3));
    let log: Arc<dyn Backfill> = Arc::clone(&scene.world.log) as _;
    let rebuilt = crate::rebuild(scene.database.pool(), log, SHARDS, "notifications").await.unwrap();
    assert_eq!((rebuilt[0].name, rebuilt[0].parked), ("notifications", 0));
    assert!(rebuilt[0].records >= 5);
    // All is read again from the start.
    scene.member.take().unwrap().leave().await;
    sqlx::query("UPDATE read.checkpoints SET position = 0 WHERE consumer = 'notifications'")
        .execute(scene.database.pool())
        .await
        .unwrap();
    scene.member = Some(Member::start(&scene.world, scene.database.pool()));
    // What comes after it was looked at after it.
    scene.append(room.said(ann())).await;
    let behind = "SELECT count(*) FROM read.checkpoints c JOIN state.notification_marks m USING (topic, shard) \
                   WHERE c.projection = 'notifications' AND c.position < m.position";
    scene.settled().await;
    eventually("it has read all again", BOUND, async || scene.number(behind).await == 0).await;
    scene.settled().await;
    assert_eq!((scene.read_by(&bens).len(), scene.hook.told().len()), (4, 4));
}

#[tokio::test]
async fn what_was_there_before_a_rebuild_is_told_by_nobody() {
    let database = Database::new().await;
    let (log, keyring) = (Arc::new(MemoryLog::default()), Keyring::open(database.pool(), None).await.unwrap());
    for user in 1..=20 {
        log.append(registered(user, "somebody"));
    }
    let types = ["user.registered".to_owned()];
    webhooks::add(database.pool(), &keyring, "http://127.0.0.1:9/", &types, None, &log.heads()).await.unwrap();
    let later = log.append(registered(21, "later"));
    crate::rebuild(database.pool(), log as _, SHARDS, "notifications").await.unwrap();
    let told: Vec<Uuid> =
        sqlx::query_scalar("SELECT event_id FROM state.deliveries").fetch_all(database.pool()).await.unwrap();
    assert_eq!(told, [later.event_id]);
}

#[tokio::test]
async fn a_webhook_that_makes_no_sense_is_not_made() {
    let database = Database::new().await;
    let keyring = Keyring::open(database.pool(), None).await.unwrap();
    let add = async |url: &str, types: &[&str], secret: Option<&str>| {
        let types: Vec<String> = types.iter().map(|name| (*name).to_owned()).collect();
        webhooks::add(database.pool(), &keyring, url, &types, secret, &[]).await
    };
    let url = "https://example.org/hook";
    for bad in ["", "example.org", "ftp://example.org", "http://"] {
        assert!(matches!(add(bad, &["message.sent"], None).await, Err(WebhookError::Url)), "{bad}");
    }
    let unknown = add(url, &["message.sent", "message.lost"], None).await.unwrap_err();
    assert!(unknown.to_string().contains("message.lost") && unknown.to_string().contains("message.read"), "{unknown}");
    assert!(matches!(add(url, &[" "], None).await, Err(WebhookError::NoTypes)));
    assert!(matches!(add(url, &["message.sent"], Some("secret")).await, Err(WebhookError::Secret)));
    assert!(webhooks::list(database.pool()).await.unwrap().is_empty());
    let given = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    assert_eq!(add(url, &["message.sent"], Some(given)).await.unwrap().1, given);
}

#[tokio::test]
async fn a_push_service_that_hangs_holds_up_no_other_user() {
    let scene = Scene::new().await;
    let tarpit = PushService::start().await.unwrap();
    tarpit.behave(Manner::Hangs);
    // Ben's browsers are all there, Cleo's is where it should be.
    for number in 20..30 {
        scene.browser_at(&tarpit, ben(), number).await;
    }
    let cleos = scene.browser(cleo(), 13).await;
    let mut room = scene.room(5).await;
    for _ in 0..10 {
        scene.append(room.said(ann())).await;
    }
    eventually("she is told all", BOUND, async || scene.read_by(&cleos).len() == 10).await;
    assert!(tarpit.pushed().len() <= 16, "{}", tarpit.pushed().len());
}

#[tokio::test]
async fn many_whose_push_service_never_answers_hold_up_neither_others_nor_webhooks() {
    let scene = Scene::new().await;
    let tarpit = PushService::start().await.unwrap();
    tarpit.behave(Manner::Hangs);
    let crowd: Vec<Uuid> = (100..140).map(Uuid::from_u128).collect();
    for (user, number) in crowd.iter().zip(200..) {
        scene.browser_at(&tarpit, *user, number).await;
    }
    let mut room = Room::new(6);
    let members: Vec<(Uuid, Role)> = crowd.iter().map(|user| (*user, Role::Member)).collect();
    scene.append(room.created(&[&[(ann(), Role::Owner)], &members[..]].concat())).await;
    for _ in 0..4 {
        scene.append(room.said(ann())).await;
    }
    eventually("they hang", BOUND, async || tarpit.pushed().len() >= 32).await;
    let cleos = scene.browser(cleo(), 13).await;
    let mut room = scene.room(5).await;
    scene.webhook(&["message.sent"]).await;
    scene.append(room.said(ann())).await;
    // Before the first of those that hang is given up.
    let told = async || scene.read_by(&cleos).len() == 1 && scene.hook.told().len() == 1;
    eventually("she is told, and the webhook", Duration::from_secs(8), told).await;
    assert_eq!(tarpit.pushed().len(), 32);
}

/// Deliveries of so many events for each webhook there is, all at once.
const FOR_EACH_WEBHOOK: &str = "INSERT INTO state.deliveries (event_id, target_id, kind, event_type, body, at, due_at) \
    SELECT gen_random_uuid(), webhook_id, 'webhook', 'user.registered', '{}', now(), now() \
      FROM state.webhooks, generate_series(1, $1)";

#[tokio::test]
async fn a_webhook_whose_secret_cannot_be_opened_is_named_and_holds_up_no_other() {
    let scene = Scene::new().await;
    let pool = scene.database.pool();
    let (other, _) = scene.webhook(&["user.registered"]).await;
    sqlx::query("UPDATE state.webhooks SET secret = '\\x00'").execute(pool).await.unwrap();
    let (id, _) = scene.webhook(&["user.registered"]).await;
    let found = webhooks::receivers(pool, &scene.keyring).await.unwrap();
    assert_eq!((found.all.into_keys().collect(), found.unreadable), (vec![id], vec![other]));
    scene.append(registered(8, "gus")).await;
    eventually("the one that can be is told", BOUND, async || scene.hook.told().len() == 1).await;
    assert!(webhooks::list(pool).await.unwrap().iter().any(|hook| hook.webhook_id == other && hook.waiting == 1));
}

#[tokio::test]
async fn however_many_webhooks_there_are_only_so_many_deliveries_are_under_way() {
    let scene = Scene::new().await;
    scene.hook.behave(Manner::Hangs);
    for _ in 0..12 {
        scene.webhook(&["user.registered"]).await;
    }
    sqlx::query(FOR_EACH_WEBHOOK).bind(4).execute(scene.database.pool()).await.unwrap();
    eventually("all slots are taken", BOUND, async || scene.hook.told().len() >= 32).await;
    let claimed = "SELECT count(*) FROM state.deliveries WHERE attempts > 0";
    assert_eq!(scene.number(claimed).await, 32);
    let of_each = "SELECT count(DISTINCT target_id) FROM state.deliveries WHERE attempts > 0";
    assert_eq!(scene.number(of_each).await, 12);
}

#[tokio::test]
async fn what_cannot_be_asked_costs_what_was_claimed_no_try() {
    let scene = Scene::new().await;
    scene.webhook(&["user.registered"]).await;
    let bens = scene.browser(ben(), 12).await;
    let mut room = scene.room(5).await;
    scene.append(room.said(ann())).await;
    scene.settled().await;
    let pool = scene.database.pool();
    let mut broken = pool.begin().await.unwrap();
    sqlx::query("ALTER TABLE read.timeline RENAME TO elsewhere").execute(&mut *broken).await.unwrap();
    sqlx::query(FOR_EACH_WEBHOOK).bind(10).execute(&mut *broken).await.unwrap();
    sqlx::query(
        "INSERT INTO state.deliveries \
                (event_id, target_id, kind, event_type, body, user_id, conversation_id, seq, at, due_at) \
         SELECT gen_random_uuid(), target_id, 'push', 'message.sent', $1, user_id, $2, 2, now(), now() \
           FROM state.push_subscriptions",
    )
    .bind(&scene.pushes.pushed()[0].message)
    .bind(room.id)
    .execute(&mut *broken)
    .await
    .unwrap();
    broken.commit().await.unwrap();
    eventually("the webhook is told", BOUND, async || scene.hook.told().len() == 10).await;
    assert_eq!(scene.number("SELECT count(*) FROM state.deliveries WHERE attempts > 0").await, 0);
    sqlx::query("ALTER TABLE read.elsewhere RENAME TO timeline").execute(pool).await.unwrap();
    scene.settled().await;
    assert_eq!(scene.read_by(&bens), [2, 2]);
}
