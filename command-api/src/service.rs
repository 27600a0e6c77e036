//! The command side as a value: what its routes and the gateway call.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use domain::kernel::LogTopic;
use event_store::{EventStore, ShardHead};
use platform::auth::{Authenticator, Tickets};
use platform::http::Problem;
use platform::limits::Limiter;
use schemas::Position;
use sqlx::PgPool;
use uuid::Uuid;

use crate::execute::place;
use crate::passwords::Passwords;
use crate::receipts::Receipts;

/// What a service stands on.
pub struct Parts {
    /// The log.
    pub store: EventStore,
    /// The database of shared state.
    pub pool: PgPool,
    /// Issues and verifies access tokens.
    pub authenticator: Authenticator,
    /// Tickets of the WebSocket upgrade.
    pub tickets: Tickets,
    /// Counts log-ins and messages.
    pub limiter: Arc<dyn Limiter>,
    /// How long sessions live, and where they may be pushed to.
    pub settings: Settings,
}

/// How long sessions live, and where they may be pushed to.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Life of a refresh token, from its last rotation.
    pub refresh_ttl: Duration,
    /// How long a used refresh token answers its own device once more.
    pub refresh_grace: Duration,
    /// Life of a session, however often it is refreshed.
    pub session_ttl: Duration,
    /// Whether push services may be in private networks, and spoken to by http.
    pub push_anywhere: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            refresh_ttl: Duration::from_hours(24),
            refresh_grace: Duration::from_secs(10),
            session_ttl: Duration::from_hours(30 * 24),
            push_anywhere: false,
        }
    }
}

/// The command side; cheap to clone.
#[derive(Clone)]
pub struct Service {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) parts: Parts,
    pub(crate) passwords: Passwords,
    pub(crate) receipts: Receipts,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("settings", &self.inner.parts.settings).finish_non_exhaustive()
    }
}

impl Service {
    /// A service on these parts.
    pub fn new(parts: Parts) -> Self {
        let receipts = Receipts::new(parts.store.clone());
        Self { inner: Arc::new(Inner { parts, passwords: Passwords::new(), receipts }) }
    }

    /// The number of the last committed event of each of these conversations; those that are unknown are left out.
    ///
    /// # Errors
    /// 503 without the log.
    pub async fn heads(&self, conversations: &[Uuid]) -> Result<HashMap<Uuid, u64>, Problem> {
        let mut heads = self.store().log().numbered_heads(conversations).await?;
        heads.retain(|_, head| *head > 0);
        Ok(heads)
    }

    /// The last committed position of each shard of the conversations' topic.
    ///
    /// # Errors
    /// 503 without the log.
    pub async fn positions(&self) -> Result<Vec<Position>, Problem> {
        let heads = self.store().log().heads().await?.into_iter();
        let conversations = heads.filter(|shard| shard.topic == LogTopic::Conversations);
        Ok(conversations.map(|ShardHead { topic, shard, head }| place(topic, shard, head)).collect())
    }

    /// Carries out what was taken and not yet done. To be called once nothing new comes, before the log is closed.
    pub async fn drain(&self) {
        self.inner.receipts.drain().await;
    }

    pub(crate) fn store(&self) -> &EventStore {
        &self.inner.parts.store
    }

    pub(crate) fn authenticator(&self) -> &Authenticator {
        &self.inner.parts.authenticator
    }
}

impl FromRef<Service> for Authenticator {
    fn from_ref(service: &Service) -> Self {
        service.authenticator().clone()
    }
}
