//! Webhooks, for whoever runs Parlance: made, listed, switched on and off, removed; and what could not be delivered.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use platform::auth::Keyring;
use reqwest::Url;
use schemas::Position;
use schemas::catalogue::EVENT_TYPES;
use sqlx::{FromRow, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::webhook::{parse_secret, secret_text};
use crate::database::{bigint, smallint};

const LONGEST_URL: usize = 2048;

/// Why a webhook was not made.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Not an address that can be called.
    #[error("an address such as https://example.org/hook, of at most {LONGEST_URL} characters, is wanted")]
    Url,
    /// There is no such event.
    #[error("there is no event {0:?}; there are: {known}", known = known().join(", "))]
    Type(String),
    /// It wants nothing.
    #[error("name the types of events that it is told of; there are: {known}", known = known().join(", "))]
    NoTypes,
    /// No secret that can be signed with.
    #[error("a secret is `whsec_` and 24 to 64 bytes in base64")]
    Secret,
    /// The database did not do it.
    #[error("the database cannot be written")]
    Database(#[from] sqlx::Error),
}

/// A webhook as it stands.
#[derive(Clone, Debug, FromRow)]
pub struct Webhook {
    /// Its id.
    pub webhook_id: Uuid,
    /// Where events are posted to.
    pub url: String,
    /// Which ones.
    pub types: Vec<String>,
    /// Whether it is told anything.
    pub enabled: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// Deliveries that wait.
    pub waiting: i64,
    /// Deliveries that were given up.
    pub failed: i64,
}

/// A delivery that was given up.
#[derive(Clone, Debug, FromRow)]
pub struct Failed {
    /// The event.
    pub event_id: Uuid,
    /// The webhook, or the browser.
    pub target_id: Uuid,
    /// `webhook` or `push`
    pub kind: String,
    /// The event's type.
    pub event_type: String,
    /// When it happened.
    pub at: OffsetDateTime,
    /// How often it was tried.
    pub attempts: i32,
    /// What came of the last try.
    pub error: String,
    /// When it was given up.
    pub died_at: OffsetDateTime,
}

/// Where a webhook's deliveries go, and by which secret they are signed.
pub(super) struct Receiver {
    pub(super) url: String,
    pub(super) secret: Vec<u8>,
}

/// The types that there are.
fn known() -> Vec<&'static str> {
    let mut names: Vec<&str> = EVENT_TYPES.iter().map(|kind| kind.name).collect();
    names.dedup();
    names
}

fn belongs_to(webhook_id: Uuid) -> Vec<u8> {
    [b"webhook" as &[u8], webhook_id.as_bytes()].concat()
}

/// Makes a webhook, to be told of events after `heads`, where the log ends now; answers its id and its secret.
///
/// # Errors
/// See [`WebhookError`].
pub async fn add(
    pool: &PgPool,
    keyring: &Keyring,
    url: &str,
    types: &[String],
    secret: Option<&str>,
    heads: &[Position],
) -> Result<(Uuid, String), WebhookError> {
    let right = Url::parse(url).is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    if !right || url.len() > LONGEST_URL {
        return Err(WebhookError::Url);
    }
    let types: Vec<&str> = types.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).collect();
    if types.is_empty() {
        return Err(WebhookError::NoTypes);
    }
    if let Some(unknown) = types.iter().find(|name| !known().contains(name)) {
        return Err(WebhookError::Type((*unknown).to_owned()));
    }
    let secret = if let Some(text) = secret {
        parse_secret(text).ok_or(WebhookError::Secret)?
    } else {
        let mut secret = vec![0; 32];
        SystemRandom::new().fill(&mut secret).expect("the system gives random bytes");
        secret
    };
    let webhook_id = Uuid::now_v7();
    let mut transaction = pool.begin().await?;
    sqlx::query("INSERT INTO state.webhooks (webhook_id, url, types, secret) VALUES ($1, $2, $3, $4)")
        .bind(webhook_id)
        .bind(url)
        .bind(types)
        .bind(keyring.seal(&secret, &belongs_to(webhook_id)))
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "INSERT INTO state.webhook_starts (webhook_id, topic, shard, position) \
         SELECT $1, * FROM unnest($2::smallint[], $3::smallint[], $4::bigint[])",
    )
    .bind(webhook_id)
    .bind(heads.iter().map(|head| head.topic.code()).collect::<Vec<_>>())
    .bind(heads.iter().map(|head| smallint(head.shard)).collect::<Vec<_>>())
    .bind(heads.iter().map(|head| bigint(head.position)).collect::<Vec<_>>())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok((webhook_id, secret_text(&secret)))
}

/// All there are, the oldest first.
pub async fn list(pool: &PgPool) -> Result<Vec<Webhook>, sqlx::Error> {
    sqlx::query_as(
        "SELECT webhook_id, url, types, enabled, created_at, \
                (SELECT count(*) FROM state.deliveries d WHERE d.target_id = w.webhook_id) AS waiting, \
                (SELECT count(*) FROM state.dead_deliveries d WHERE d.target_id = w.webhook_id) AS failed \
           FROM state.webhooks w ORDER BY created_at, webhook_id",
    )
    .fetch_all(pool)
    .await
}

/// Removes one with all that it was to be told; whether there was one.
pub async fn remove(pool: &PgPool, webhook_id: Uuid) -> Result<bool, sqlx::Error> {
    let removed = sqlx::query(
        "WITH waiting AS (DELETE FROM state.deliveries WHERE target_id = $1), \
              failed AS (DELETE FROM state.dead_deliveries WHERE target_id = $1) \
         DELETE FROM state.webhooks WHERE webhook_id = $1",
    )
    .bind(webhook_id)
    .execute(pool)
    .await?;
    Ok(removed.rows_affected() > 0)
}

/// Switches one on or off; whether there is one. What happens while it is off it is never told; what waits goes on
/// waiting, until it is too old.
pub async fn set_enabled(pool: &PgPool, webhook_id: Uuid, enabled: bool) -> Result<bool, sqlx::Error> {
    let set = sqlx::query("UPDATE state.webhooks SET enabled = $2 WHERE webhook_id = $1")
        .bind(webhook_id)
        .bind(enabled)
        .execute(pool)
        .await?;
    Ok(set.rows_affected() > 0)
}

/// The last `most` deliveries that were given up: all, or those of one webhook.
pub async fn failed(pool: &PgPool, webhook_id: Option<Uuid>, most: u32) -> Result<Vec<Failed>, sqlx::Error> {
    sqlx::query_as(
        "SELECT event_id, target_id, kind, event_type, at, attempts, error, died_at FROM state.dead_deliveries \
          WHERE $1::uuid IS NULL OR target_id = $1 ORDER BY died_at DESC, event_id, target_id LIMIT $2",
    )
    .bind(webhook_id)
    .bind(i64::from(most))
    .fetch_all(pool)
    .await
}

/// Has deliveries that were given up tried again, from the first try on: all, or those of a webhook or of an event; how
/// many.
pub async fn retry(pool: &PgPool, id: Option<Uuid>) -> Result<u64, sqlx::Error> {
    let again = sqlx::query(
        "WITH again AS (DELETE FROM state.dead_deliveries \
                         WHERE $1::uuid IS NULL OR target_id = $1 OR event_id = $1 RETURNING *) \
         INSERT INTO state.deliveries \
                (event_id, target_id, kind, event_type, body, user_id, conversation_id, seq, at, due_at, error) \
         SELECT event_id, target_id, kind, event_type, body, user_id, conversation_id, seq, at, now(), error FROM again \
         ON CONFLICT DO NOTHING",
    )
    .bind(id)
    .execute(pool)
    .await?;
    Ok(again.rows_affected())
}

/// Those that are switched on.
pub(super) struct Receivers {
    /// Those whose secrets can be opened.
    pub(super) all: HashMap<Uuid, Arc<Receiver>>,
    /// The others: sealed by another master key, they can be told nothing.
    pub(super) unreadable: Vec<Uuid>,
}

pub(super) async fn receivers(pool: &PgPool, keyring: &Keyring) -> Result<Receivers, sqlx::Error> {
    let rows: Vec<(Uuid, String, Vec<u8>)> =
        sqlx::query_as("SELECT webhook_id, url, secret FROM state.webhooks WHERE enabled").fetch_all(pool).await?;
    let mut receivers = Receivers { all: HashMap::new(), unreadable: Vec::new() };
    for (id, url, sealed) in rows {
        match keyring.unseal(&sealed, &belongs_to(id)) {
            Some(secret) => drop(receivers.all.insert(id, Arc::new(Receiver { url, secret }))),
            None => receivers.unreadable.push(id),
        }
    }
    Ok(receivers)
}

/// Removes a browser that is no more, and what it was to be told.
pub(super) async fn forget_browser(pool: &PgPool, target_id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH waiting AS (DELETE FROM state.deliveries WHERE target_id = $1) \
         DELETE FROM state.push_subscriptions WHERE target_id = $1",
    )
    .bind(target_id)
    .execute(pool)
    .await?;
    Ok(())
}
