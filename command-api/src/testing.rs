//! The whole command side over a database of its own, asked as a client asks.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use event_store::{EventStore, Options, StoredEvent};
use http::{Request, StatusCode, request};
use platform::auth::{AuthSettings, Authenticator, Keyring, Revocations, Tickets};
use platform::config::{Rate, RateLimits};
use platform::limits::LocalLimiter;
use serde_json::{Value, json};
use sqlx::PgPool;
use testkit::Database;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;
use uuid::Uuid;

use crate::service::{Parts, Service, Settings};

pub(crate) const PASSWORD: &str = "correct horse";
const HOUR: Duration = Duration::from_hours(1);

pub(crate) struct Api {
    pub(crate) service: Service,
    pub(crate) router: Router,
    stop: CancellationToken,
    _stop: DropGuard,
    database: Arc<Database>,
}

/// A user who is logged in.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) user_id: Uuid,
    pub(crate) session_id: Uuid,
    pub(crate) device_id: Uuid,
    pub(crate) token: String,
    pub(crate) refresh_token: String,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    headers: http::HeaderMap,
    pub(crate) body: Value,
}

impl std::ops::Index<&str> for Answered {
    type Output = Value;

    fn index(&self, field: &str) -> &Value {
        &self.body[field]
    }
}

impl Answered {
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        if self.status.is_client_error() {
            assert_eq!(self.header("content-type"), Some("application/problem+json"));
            assert_eq!(self.body["status"], status);
        }
        self
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.is(200)
    }

    #[track_caller]
    pub(crate) fn created(self) -> Self {
        self.is(201)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn pointers(&self) -> Vec<String> {
        let errors = self.body["errors"].as_array().unwrap();
        errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
    }
}

impl Api {
    /// Without limits.
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    /// With limits of three messages and ten log-ins, which no test is slow enough to see renewed.
    pub(crate) async fn limited() -> Self {
        let rate = |burst| {
            let burst = NonZeroU32::new(burst)?;
            Some(Rate { amount: burst, period: burst.get() * HOUR, burst })
        };
        let limits = RateLimits { messages: rate(3), logins: rate(10) };
        Self::on(Arc::new(Database::new().await), Settings::default(), limits).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        Self::on(Arc::new(Database::new().await), settings, RateLimits::OFF).await
    }

    /// Another process on the same database.
    pub(crate) async fn beside(&self) -> Self {
        Self::on(self.database.clone(), Settings::default(), RateLimits::OFF).await
    }

    async fn on(database: Arc<Database>, settings: Settings, limits: RateLimits) -> Self {
        let pool = database.pool().clone();
        let stop = CancellationToken::new();
        let auth = AuthSettings::default();
        let revocations = Revocations::open(pool.clone(), auth.access_ttl, stop.clone()).await.unwrap();
        let authenticator = Authenticator::new(Keyring::open(&pool, None).await.unwrap(), revocations, auth);
        let service = Service::new(Parts {
            store: EventStore::open(pool.clone(), Options::default()).await.unwrap(),
            tickets: Tickets::new(pool.clone(), authenticator.clone(), Duration::from_secs(30)),
            pool,
            authenticator,
            limiter: Arc::new(LocalLimiter::new(limits)),
            settings,
        });
        let router = platform::http::frame(
            crate::router(service.clone()).merge(crate::internal_router(service.clone(), stop.clone())),
        );
        Self { service, router, stop: stop.clone(), _stop: stop.drop_guard(), database }
    }

    /// Begins to stop.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    pub(crate) fn pool(&self) -> &PgPool {
        self.database.pool()
    }

    pub(crate) fn tickets(&self) -> &Tickets {
        &self.service.inner.parts.tickets
    }

    /// How many events of a type there are.
    pub(crate) async fn events(&self, event_type: &str) -> usize {
        self.log().await.iter().filter(|event| event.event_type == event_type).count()
    }

    /// All events.
    pub(crate) async fn log(&self) -> Vec<StoredEvent> {
        let log = self.service.store().log();
        let mut events = Vec::new();
        for shard in log.heads().await.unwrap().into_iter().filter(|shard| shard.head > 0) {
            events.extend(log.read(shard.topic, shard.shard, 0, 10_000).await.unwrap());
        }
        events
    }

    pub(crate) async fn ask(&self, request: Request<Body>) -> Answered {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        Answered { status: parts.status, headers: parts.headers, body }
    }

    async fn send(&self, request: request::Builder, by: Option<&Account>, body: Value) -> Answered {
        let request = match by {
            Some(account) => request.header("authorization", format!("Bearer {}", account.token)),
            None => request,
        };
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.ask(request.header("content-type", "application/json").body(body).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, by: Option<&Account>, body: Value) -> Answered {
        self.send(Request::post(path), by, body).await
    }

    pub(crate) async fn put(&self, path: &str, by: &Account, body: Value) -> Answered {
        self.send(Request::put(path), Some(by), body).await
    }

    pub(crate) async fn patch(&self, path: &str, by: &Account, body: Value) -> Answered {
        self.send(Request::patch(path), Some(by), body).await
    }

    pub(crate) async fn delete(&self, path: &str, by: &Account) -> Answered {
        self.send(Request::delete(path), Some(by), Value::Null).await
    }

    /// As a gateway of the same installation asks.
    pub(crate) async fn internal(&self, path: &str, body: impl serde::Serialize) -> Answered {
        let token = self.service.authenticator().keyring().internal_token();
        let request = Request::post(path).header("authorization", format!("Bearer {token}"));
        let body = serde_json::to_vec(&body).unwrap();
        self.ask(request.header("content-type", "application/json").body(Body::from(body)).unwrap()).await
    }

    pub(crate) async fn user(&self, username: &str) -> Account {
        let body = json!({"username": username, "email": format!("{username}@example.org"), "password": PASSWORD});
        self.post("/v1/users", None, body).await.created();
        self.log_in(username).await
    }

    pub(crate) async fn users<const N: usize>(&self, usernames: [&str; N]) -> [Account; N] {
        let mut accounts = Vec::new();
        for username in usernames {
            accounts.push(self.user(username).await);
        }
        accounts.try_into().unwrap()
    }

    pub(crate) async fn log_in(&self, username: &str) -> Account {
        self.log_in_on(username, Uuid::now_v7()).await
    }

    pub(crate) async fn log_in_on(&self, username: &str, device_id: Uuid) -> Account {
        let body = json!({"login": username, "password": PASSWORD, "device_id": device_id});
        let session = self.post("/v1/sessions", None, body).await.created();
        let text = |field: &str| session[field].as_str().unwrap().to_owned();
        Account {
            user_id: text("user_id").parse().unwrap(),
            session_id: text("session_id").parse().unwrap(),
            device_id: text("device_id").parse().unwrap(),
            token: text("access_token"),
            refresh_token: text("refresh_token"),
        }
    }

    pub(crate) async fn refresh(&self, account: &Account) -> Answered {
        let body = json!({"refresh_token": account.refresh_token, "device_id": account.device_id});
        self.post("/v1/sessions/refresh", None, body).await
    }

    async fn open(&self, by: &Account, body: Value) -> Uuid {
        let made = self.post("/v1/conversations", Some(by), body).await;
        made["conversation_id"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) async fn direct(&self, by: &Account, other: &Account) -> Uuid {
        self.open(by, json!({"type": "direct", "member_ids": [other.user_id]})).await
    }

    pub(crate) async fn group(&self, by: &Account, others: &[&Account]) -> Uuid {
        let ids: Vec<Uuid> = others.iter().map(|other| other.user_id).collect();
        self.open(by, json!({"type": "group", "member_ids": ids})).await
    }

    /// Says something; its number.
    pub(crate) async fn say(&self, by: &Account, conversation: Uuid) -> u64 {
        let body = json!({"message_id": Uuid::now_v7(), "content": "hi"});
        let path = format!("/v1/conversations/{conversation}/messages");
        self.post(&path, Some(by), body).await.created()["seq"].as_u64().unwrap()
    }
}
