//! A command side as in a process of its own: a runtime of one thread, which can be stopped, and killed.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use command_api::{Parts, Service, Settings};
use event_store::{EventStore, Options};
use http::Request;
use platform::auth::{AuthSettings, Authenticator, Caller, Keyring, Revocations, Tickets};
use platform::config::RateLimits;
use platform::limits::LocalLimiter;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

pub(super) struct Side {
    pub(super) service: Service,
    pub(super) authenticator: Authenticator,
    pub(super) address: SocketAddr,
    router: Router,
    stop: CancellationToken,
    runtime: Option<Runtime>,
}

impl Side {
    /// One on this database, at an address of its own or at a certain one.
    pub(super) async fn start(database: PgConnectOptions, at: Option<SocketAddr>) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let stop = CancellationToken::new();
        let started = runtime.spawn(Self::open(database, at, stop.clone()));
        let (service, authenticator, address, router) = started.await.unwrap();
        Self { service, authenticator, address, router, stop, runtime: Some(runtime) }
    }

    async fn open(
        database: PgConnectOptions,
        at: Option<SocketAddr>,
        stop: CancellationToken,
    ) -> (Service, Authenticator, SocketAddr, Router) {
        let pool = PgPoolOptions::new().max_connections(4).connect_lazy_with(database);
        let auth = AuthSettings::default();
        let revocations = Revocations::open(pool.clone(), auth.access_ttl, stop.clone()).await.unwrap();
        let authenticator = Authenticator::new(Keyring::open(&pool, None).await.unwrap(), revocations, auth);
        let service = Service::new(Parts {
            store: EventStore::open(pool.clone(), Options::default()).await.unwrap(),
            tickets: Tickets::new(pool.clone(), authenticator.clone(), Duration::from_secs(30)),
            pool,
            authenticator: authenticator.clone(),
            limiter: Arc::new(LocalLimiter::new(RateLimits::OFF)),
            settings: Settings::default(),
        });
        let public = command_api::router(service.clone());
        let router = platform::http::frame(public.merge(command_api::internal_router(service.clone(), stop.clone())));
        let listener = TcpListener::bind(at.unwrap_or("127.0.0.1:0".parse().unwrap())).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(platform::http::serve(listener, router.clone(), stop, Duration::from_secs(5)));
        (service, authenticator, address, router)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it as a signal that cannot be caught does: what was under way is never answered.
    pub(super) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Lets what is under way be answered, and takes nothing new.
    pub(super) fn drain(&self) {
        self.stop.cancel();
    }

    /// Stops it where it stands, until what is returned is dropped.
    pub(super) fn freeze(&self) -> mpsc::Sender<()> {
        let (thaw, thawed) = mpsc::channel();
        self.runtime.as_ref().unwrap().spawn(async move {
            // Ends with the other end.
            let _ = thawed.recv();
        });
        thaw
    }

    async fn post(&self, path: &str, token: Option<&str>, body: Value) -> Value {
        let mut request = Request::post(path).header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::from(body.to_string())).unwrap();
        let router = self.router.clone();
        let answer = self.runtime.as_ref().unwrap().spawn(async move {
            let response = router.oneshot(request).await.unwrap();
            axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap()
        });
        serde_json::from_slice(&answer.await.unwrap()).unwrap()
    }

    /// Somebody who is logged in, and their token.
    pub(super) async fn user(&self, username: &str) -> (Caller, String) {
        let email = format!("{username}@example.org");
        let password = "correct horse";
        self.post("/v1/users", None, json!({"username": username, "email": email, "password": password})).await;
        let session = self.post("/v1/sessions", None, json!({"login": username, "password": password})).await;
        let token = session["access_token"].as_str().unwrap();
        (self.authenticator.verify(token).unwrap(), token.to_owned())
    }

    /// A group of somebody's alone.
    pub(super) async fn group(&self, token: &str) -> Uuid {
        let opened = self.post("/v1/conversations", Some(token), json!({"type": "group", "name": "g"})).await;
        opened["conversation_id"].as_str().unwrap().parse().unwrap()
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.kill();
    }
}
