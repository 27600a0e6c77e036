//! From what happens to who is told, over real sockets: a push service and webhooks of the tests' own.

mod to_browsers;
mod to_webhooks;

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

const BOUND: Duration = Duration::from_mins(1);

/// Deliveries of so many events for each webhook there is, all at once.
const FOR_EACH_WEBHOOK: &str = "INSERT INTO state.deliveries (event_id, target_id, kind, event_type, body, at, due_at) \
    SELECT gen_random_uuid(), webhook_id, 'webhook', 'user.registered', '{}', now(), now() \
      FROM state.webhooks, generate_series(1, $1)";

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
