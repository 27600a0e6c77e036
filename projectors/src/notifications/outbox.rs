//! What is to be sent: taken for a while by one process, and gone once its receiver has it.

use std::collections::HashMap;
use std::time::Duration;

use platform::traces::{self, Kind, Span};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::call::PATIENCE;

/// How long whoever took a delivery has for it; after that it is taken again. Longer than a receiver may take to answer.
pub(super) const CLAIM: Duration = PATIENCE.saturating_mul(2);

/// Pushes that are looked at once, to find some of different users.
const WINDOW: i64 = 500;

/// One event for one target, to be sent now.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct Delivery {
    pub(super) event_id: Uuid,
    pub(super) target_id: Uuid,
    pub(super) kind: String,
    pub(super) event_type: String,
    pub(super) body: Json<Value>,
    pub(super) user_id: Option<Uuid>,
    pub(super) conversation_id: Option<Uuid>,
    pub(super) seq: Option<i64>,
    pub(super) at: OffsetDateTime,
    /// Tries with this one.
    pub(super) attempts: i32,
    /// Of a push, the origin of its endpoint.
    pub(super) service: Option<String>,
}

impl Delivery {
    /// The trace that the event is part of.
    pub(super) fn traceparent(&self) -> Option<&str> {
        self.body.0["traceparent"].as_str()
    }

    /// The span of a try, if somebody looks at that trace: the child of what caused the event, as all that is made of it.
    pub(super) fn attempt(&self) -> Option<Span> {
        let name = if self.kind == "push" { "notify browser" } else { "notify webhook" };
        let mut span = traces::begin(name, Kind::Client, self.traceparent())?;
        span.set("parlance.event_type", self.event_type.clone());
        span.set("parlance.event_id", self.event_id.to_string());
        span.set("parlance.target_id", self.target_id.to_string());
        span.set("parlance.attempt", i64::from(self.attempts));
        Some(span)
    }
}

/// How much room there is for pushes: in all, and for each user and each service, of which some have pushes under way.
pub(super) struct Room {
    pub(super) all: usize,
    pub(super) user: usize,
    pub(super) service: usize,
    pub(super) users: HashMap<Uuid, usize>,
    pub(super) services: HashMap<String, usize>,
}

/// What is due for webhooks: for each no more than there is room for, and no more than `all`. What waits longest of each
/// comes first.
pub(super) async fn claim_webhooks(
    pool: &PgPool,
    all: usize,
    rooms: &[(Uuid, usize)],
) -> Result<Vec<Delivery>, sqlx::Error> {
    sqlx::query_as(
        "WITH due AS MATERIALIZED ( \
             SELECT d.event_id, d.target_id FROM unnest($1::uuid[], $2::bigint[]) AS t(target_id, room) \
              CROSS JOIN LATERAL ( \
                    SELECT event_id, target_id, due_at FROM state.deliveries \
                     WHERE target_id = t.target_id AND due_at <= now() \
                     ORDER BY due_at LIMIT t.room FOR UPDATE SKIP LOCKED) d \
              ORDER BY row_number() OVER (PARTITION BY d.target_id ORDER BY d.due_at), d.due_at LIMIT $4) \
         UPDATE state.deliveries d SET due_at = now() + $3, attempts = d.attempts + 1 \
           FROM due WHERE d.event_id = due.event_id AND d.target_id = due.target_id \
         RETURNING d.event_id, d.target_id, d.kind, d.event_type, d.body, d.user_id, d.conversation_id, d.seq, d.at, \
                   d.attempts, NULL::text AS service",
    )
    .bind(rooms.iter().map(|(target, _)| *target).collect::<Vec<_>>())
    .bind(rooms.iter().map(|(_, room)| count(*room)).collect::<Vec<_>>())
    .bind(CLAIM)
    .bind(count(all))
    .fetch_all(pool)
    .await
}

/// What is due of pushes, as far as there is room. Those who have no room are passed over, so that what waits behind
/// them is found however much they have waiting.
pub(super) async fn claim_pushes(connection: &mut PgConnection, room: &Room) -> Result<Vec<Delivery>, sqlx::Error> {
    let full = |under_way: usize, most: usize| under_way >= most;
    sqlx::query_as(
        "WITH first AS ( \
             SELECT d.event_id, d.target_id, d.user_id, d.due_at, coalesce(s.service, '') AS service \
               FROM state.deliveries d LEFT JOIN state.push_subscriptions s USING (target_id) \
              WHERE d.kind = 'push' AND d.due_at <= now() \
                AND d.user_id <> ALL($8) AND coalesce(s.service, '') <> ALL($9) \
              ORDER BY d.due_at LIMIT $10), \
         of_users AS ( \
             SELECT first.*, \
                    row_number() OVER (PARTITION BY user_id ORDER BY due_at) + coalesce(u.under_way, 0) AS nth \
               FROM first LEFT JOIN unnest($4::uuid[], $5::bigint[]) AS u(user_id, under_way) USING (user_id)), \
         of_services AS ( \
             SELECT event_id, target_id, service, \
                    row_number() OVER (PARTITION BY service ORDER BY due_at) + coalesce(o.under_way, 0) AS nth \
               FROM of_users LEFT JOIN unnest($6::text[], $7::bigint[]) AS o(service, under_way) USING (service) \
              WHERE nth <= $2), \
         due AS MATERIALIZED ( \
             SELECT d.event_id, d.target_id, h.service \
               FROM state.deliveries d JOIN of_services h USING (event_id, target_id) \
              WHERE h.nth <= $3 AND d.due_at <= now() \
              ORDER BY d.due_at LIMIT $1 FOR UPDATE OF d SKIP LOCKED) \
         UPDATE state.deliveries d SET due_at = now() + $11, attempts = d.attempts + 1 \
           FROM due WHERE d.event_id = due.event_id AND d.target_id = due.target_id \
         RETURNING d.event_id, d.target_id, d.kind, d.event_type, d.body, d.user_id, d.conversation_id, d.seq, d.at, \
                   d.attempts, due.service",
    )
    .bind(count(room.all))
    .bind(count(room.user))
    .bind(count(room.service))
    .bind(room.users.keys().copied().collect::<Vec<_>>())
    .bind(room.users.values().copied().map(count).collect::<Vec<_>>())
    .bind(room.services.keys().cloned().collect::<Vec<_>>())
    .bind(room.services.values().copied().map(count).collect::<Vec<_>>())
    .bind(room.users.iter().filter(|(_, n)| full(**n, room.user)).map(|(user, _)| *user).collect::<Vec<_>>())
    .bind(
        room.services
            .iter()
            .filter(|(_, n)| full(**n, room.service))
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(WINDOW)
    .bind(CLAIM)
    .fetch_all(connection)
    .await
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What comes of a delivery counts only while it is the claim's own: whoever was held up for longer than that finds that
/// another has it, with one more try.
/// Keeps the rows of `dead`, which were deliveries, as dead letters; parameter 3 is the reason.
macro_rules! bury_dead {
    () => {
        "INSERT INTO state.dead_deliveries AS d \
                (event_id, target_id, kind, event_type, body, user_id, conversation_id, seq, at, attempts, error) \
         SELECT event_id, target_id, kind, event_type, body, user_id, conversation_id, seq, at, attempts, $3 FROM dead \
         ON CONFLICT (event_id, target_id) DO UPDATE SET \
                attempts = excluded.attempts, error = excluded.error, died_at = excluded.died_at"
    };
}
pub(super) use bury_dead;

impl Delivery {
    /// Who is held to a few at once: the webhook, or the user, whose browsers may be of any service that they name.
    fn owner(&self) -> Uuid {
        self.user_id.unwrap_or(self.target_id)
    }

    /// Where it counts as under way.
    pub(super) fn place(&self) -> (Uuid, Option<String>) {
        (self.owner(), self.service.clone())
    }

    /// It is not to be sent any more.
    pub(super) async fn done(&self, database: impl PgExecutor<'_>) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM state.deliveries WHERE event_id = $1 AND target_id = $2 AND attempts = $3")
            .bind(self.event_id)
            .bind(self.target_id)
            .bind(self.attempts)
            .execute(database)
            .await?;
        Ok(())
    }

    /// It is tried again after `wait`.
    pub(super) async fn postpone(
        &self,
        database: impl PgExecutor<'_>,
        wait: Duration,
        error: &str,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE state.deliveries SET due_at = now() + $4, error = $5 \
              WHERE event_id = $1 AND target_id = $2 AND attempts = $3",
        )
        .bind(self.event_id)
        .bind(self.target_id)
        .bind(self.attempts)
        .bind(wait)
        .bind(error)
        .execute(database)
        .await?;
        Ok(())
    }

    /// It is given up, and kept for whoever wants it tried again.
    pub(super) async fn bury(&self, database: impl PgExecutor<'_>, error: &str) -> Result<(), sqlx::Error> {
        sqlx::query(concat!(
            "WITH dead AS (DELETE FROM state.deliveries \
                            WHERE event_id = $1 AND target_id = $2 AND attempts = $4 RETURNING *) \
             ",
            bury_dead!(),
        ))
        .bind(self.event_id)
        .bind(self.target_id)
        .bind(error)
        .bind(self.attempts)
        .execute(database)
        .await?;
        Ok(())
    }
}

/// How many wait, by kind, as far as it is worth counting.
pub(super) async fn waiting(pool: &PgPool) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT k.kind, (SELECT count(*) FROM (SELECT FROM state.deliveries d WHERE d.kind = k.kind LIMIT 100000) some) \
           FROM (VALUES ('push'), ('webhook')) AS k(kind)",
    )
    .fetch_all(pool)
    .await
}

/// Removes what nobody can want any more.
pub(super) async fn sweep(pool: &PgPool) -> Result<(), sqlx::Error> {
    for statement in [
        "DELETE FROM state.push_subscriptions WHERE expires_at < now()",
        "DELETE FROM state.dead_deliveries WHERE died_at < now() - interval '30 days'",
        "DELETE FROM state.deliveries d WHERE kind = 'webhook' \
            AND NOT EXISTS (SELECT FROM state.webhooks w WHERE w.webhook_id = d.target_id)",
    ] {
        sqlx::query(statement).execute(pool).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use testkit::Database;

    use super::*;

    #[tokio::test]
    async fn who_was_held_up_takes_nothing_from_whoever_has_it_now() {
        let database = Database::new().await;
        let (pool, target) = (database.pool(), Uuid::from_u128(1));
        sqlx::query(
            "INSERT INTO state.deliveries (event_id, target_id, kind, event_type, body, at, due_at) \
             VALUES (gen_random_uuid(), $1, 'webhook', 'user.registered', '{}', now(), now())",
        )
        .bind(target)
        .execute(pool)
        .await
        .unwrap();
        let claim = async || claim_webhooks(pool, 1, &[(target, 1)]).await.unwrap();
        let held_up = claim().await.remove(0);
        assert!(claim().await.is_empty());
        sqlx::query("UPDATE state.deliveries SET due_at = now()").execute(pool).await.unwrap();
        let now = claim().await.remove(0);
        assert_eq!((held_up.attempts, now.attempts), (1, 2));
        let states = async || -> Vec<(OffsetDateTime, Option<String>)> {
            sqlx::query_as("SELECT due_at, error FROM state.deliveries").fetch_all(pool).await.unwrap()
        };
        let before = states().await;
        assert_eq!(before.len(), 1);
        held_up.postpone(pool, Duration::from_hours(1), "late").await.unwrap();
        assert_eq!(states().await, before);
        held_up.bury(pool, "late").await.unwrap();
        assert_eq!(states().await, before);
        held_up.done(pool).await.unwrap();
        assert_eq!(states().await, before);
        now.done(pool).await.unwrap();
        assert_eq!(states().await, []);
    }
}
