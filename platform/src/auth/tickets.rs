//! Tickets: what a browser, which cannot set headers, opens a WebSocket with. Good once, for half a minute.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemas::rest::Ticket;
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::authenticator::{Authenticator, Caller};

/// Tickets that expired unused are cleared away by those who come after, this many at a time.
const CLEARED_AT_ONCE: i64 = 100;

/// Gives tickets out and takes them back; they stand in the database, so that any process takes them.
#[derive(Clone)]
pub struct Tickets {
    pool: PgPool,
    authenticator: Authenticator,
    ttl: Duration,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl Tickets {
    /// Those of this database, good for `ttl`.
    pub fn new(pool: PgPool, authenticator: Authenticator, ttl: Duration) -> Self {
        Self { pool, authenticator, ttl }
    }

    /// A ticket of the caller's session.
    pub async fn issue(&self, caller: &Caller) -> Result<Ticket, sqlx::Error> {
        let ticket = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let now = OffsetDateTime::now_utc();
        let expires_at = now + self.ttl;
        sqlx::query(
            "WITH cleared AS (
                 DELETE FROM state.ws_tickets WHERE ticket_hash IN (
                     SELECT ticket_hash FROM state.ws_tickets WHERE expires_at < $1
                      ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED))
             INSERT INTO state.ws_tickets (ticket_hash, user_id, session_id, device_id, access_expires_at, expires_at)
             VALUES ($3, $4, $5, $6, $7, $8)",
        )
        .bind(now)
        .bind(CLEARED_AT_ONCE)
        .bind(hash(&ticket))
        .bind(caller.user_id)
        .bind(caller.session_id)
        .bind(caller.device_id)
        .bind(caller.expires_at)
        .bind(expires_at)
        .execute(&self.pool)
        .await?;
        Ok(Ticket { ticket, expires_at })
    }

    /// Takes a ticket back: whose it was, unless it was used, has expired, or its session may no more.
    pub async fn redeem(&self, ticket: &str) -> Result<Option<Caller>, sqlx::Error> {
        let row: Option<(Uuid, Uuid, Uuid, OffsetDateTime, OffsetDateTime)> = sqlx::query_as(
            "DELETE FROM state.ws_tickets WHERE ticket_hash = $1
             RETURNING user_id, session_id, device_id, access_expires_at, expires_at",
        )
        .bind(hash(ticket))
        .fetch_optional(&self.pool)
        .await?;
        let Some((user_id, session_id, device_id, access_expires_at, expires_at)) = row else { return Ok(None) };
        let caller = Caller { user_id, session_id, device_id, expires_at: access_expires_at };
        let good = expires_at > OffsetDateTime::now_utc() && self.authenticator.still_good(&caller).is_ok();
        Ok(good.then_some(caller))
    }
}

fn hash(ticket: &str) -> Vec<u8> {
    Sha256::digest(ticket).to_vec()
}

#[cfg(test)]
mod tests {
    use testkit::Database;
    use tokio_util::sync::CancellationToken;

    use super::super::{AuthSettings, Keyring, Revocations};
    use super::*;

    async fn tickets(database: &Database, ttl: Duration) -> Tickets {
        let pool = database.pool().clone();
        let keyring = Keyring::open(&pool, None).await.unwrap();
        let settings = AuthSettings::default();
        let revocations = Revocations::open(pool.clone(), settings.access_ttl, CancellationToken::new()).await.unwrap();
        Tickets::new(pool, Authenticator::new(keyring, revocations, settings), ttl)
    }

    fn caller(session: u128) -> Caller {
        Caller {
            user_id: Uuid::from_u128(1),
            session_id: Uuid::from_u128(session),
            device_id: Uuid::from_u128(3),
            // PostgreSQL keeps microseconds.
            expires_at: OffsetDateTime::from_unix_timestamp(4_000_000_000).unwrap(),
        }
    }

    #[tokio::test]
    async fn a_ticket_is_good_once() {
        let database = Database::new().await;
        let tickets = tickets(&database, Duration::from_secs(30)).await;
        let ticket = tickets.issue(&caller(2)).await.unwrap().ticket;
        let (one, other) = tokio::join!(tickets.redeem(&ticket), tickets.redeem(&ticket));
        let redeemed: Vec<_> = [one.unwrap(), other.unwrap()].into_iter().flatten().collect();
        assert_eq!(redeemed, [caller(2)]);
        assert_eq!(tickets.redeem("nonsense").await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_expired_ticket_and_one_of_a_revoked_session_are_not() {
        let database = Database::new().await;
        let expired = tickets(&database, Duration::ZERO).await;
        let ticket = expired.issue(&caller(2)).await.unwrap().ticket;
        assert_eq!(expired.redeem(&ticket).await.unwrap(), None);
        let tickets = tickets(&database, Duration::from_secs(30)).await;
        let ticket = tickets.issue(&caller(9)).await.unwrap().ticket;
        tickets.authenticator.revocations().revoke(&[caller(9).session_id]).await.unwrap();
        assert_eq!(tickets.redeem(&ticket).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_expired_is_cleared_away() {
        let database = Database::new().await;
        let expired = tickets(&database, Duration::ZERO).await;
        for _ in 0..3 {
            expired.issue(&caller(2)).await.unwrap();
        }
        let left: i64 =
            sqlx::query_scalar("SELECT count(*) FROM state.ws_tickets").fetch_one(database.pool()).await.unwrap();
        assert_eq!(left, 1, "only the last");
    }
}
