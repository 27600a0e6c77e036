//! What one webhook may leave lying: what waits too long, or is too much, goes to its dead letters, the oldest first; and
//! of these the oldest are lost.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::outbox::{CLAIM, bury_dead};

/// Deliveries moved by one statement.
const CHUNK: i64 = 10_000;

/// The bounds of one webhook.
#[derive(Clone, Copy)]
pub(super) struct Most {
    /// Deliveries that wait.
    pub(super) waiting: i64,
    /// How long they do.
    pub(super) age: Duration,
    /// Dead letters.
    pub(super) dead: i64,
}

/// Longer than all tries of a delivery take, by the settings there are by themselves.
pub(super) const MOST: Most = Most { waiting: 100_000, age: Duration::from_hours(3 * 24), dead: 100_000 };

/// What was too much of a webhook.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overflow {
    pub(super) webhook: Uuid,
    /// Deliveries that are dead letters now.
    pub(super) given_up: u64,
    /// Dead letters that are no more.
    pub(super) lost: u64,
}

/// Brings all webhooks within bounds; those that were not.
pub(super) async fn trim(pool: &PgPool, most: &Most) -> Result<Vec<Overflow>, sqlx::Error> {
    let webhooks: Vec<Uuid> = sqlx::query_scalar("SELECT webhook_id FROM state.webhooks").fetch_all(pool).await?;
    let mut all = Vec::new();
    for webhook in webhooks {
        let mut transaction = pool.begin().await?;
        // Two who count at once would both take away what is too much.
        let mine = "SELECT pg_try_advisory_xact_lock(hashtext('parlance overflow'), hashtext($1::text))";
        if !sqlx::query_scalar(mine).bind(webhook).fetch_one(&mut *transaction).await? {
            continue;
        }
        let given_up = trim_waiting(&mut transaction, webhook, most).await?;
        let lost = trim_dead(&mut transaction, webhook, most.dead).await?;
        transaction.commit().await?;
        if given_up + lost > 0 {
            all.push(Overflow { webhook, given_up, lost });
        }
    }
    Ok(all)
}

async fn trim_waiting(connection: &mut PgConnection, webhook: Uuid, most: &Most) -> Result<u64, sqlx::Error> {
    let (old, count): (i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE since < now() - $2), count(*) FROM state.deliveries WHERE target_id = $1",
    )
    .bind(webhook)
    .bind(most.age)
    .fetch_one(&mut *connection)
    .await?;
    let aged = give_up(connection, webhook, old, "waited too long").await?;
    // Those too old are the oldest, and were taken just now.
    Ok(aged + give_up(connection, webhook, count - old - most.waiting, "too many wait").await?)
}

/// Gives up the oldest; not what may be under way, as its receiver may have it.
async fn give_up(connection: &mut PgConnection, webhook: Uuid, mut many: i64, why: &str) -> Result<u64, sqlx::Error> {
    let mut all = 0;
    while many > 0 {
        let given_up = sqlx::query(concat!(
            "WITH over AS MATERIALIZED ( \
                 SELECT event_id, target_id FROM state.deliveries \
                  WHERE target_id = $1 AND NOT (attempts > 0 AND due_at > now() AND due_at <= now() + $4) \
                  ORDER BY since, event_id LIMIT $2 FOR UPDATE SKIP LOCKED), \
             dead AS (DELETE FROM state.deliveries d USING over \
                       WHERE d.event_id = over.event_id AND d.target_id = over.target_id RETURNING d.*) \
             ",
            bury_dead!(),
        ))
        .bind(webhook)
        .bind(many.min(CHUNK))
        .bind(why)
        .bind(CLAIM)
        .execute(&mut *connection)
        .await?
        .rows_affected();
        if given_up == 0 {
            break;
        }
        all += given_up;
        many -= i64::try_from(given_up).unwrap_or(i64::MAX);
    }
    Ok(all)
}

async fn trim_dead(connection: &mut PgConnection, webhook: Uuid, most: i64) -> Result<u64, sqlx::Error> {
    let lost = sqlx::query(
        "DELETE FROM state.dead_deliveries d \
          USING (SELECT event_id FROM state.dead_deliveries WHERE target_id = $1 \
                  ORDER BY died_at DESC, at DESC, event_id DESC OFFSET $2) AS over \
          WHERE d.target_id = $1 AND d.event_id = over.event_id",
    )
    .bind(webhook)
    .bind(most)
    .execute(connection)
    .await?;
    Ok(lost.rows_affected())
}

#[cfg(test)]
mod tests {
    use platform::auth::Keyring;
    use testkit::Database;

    use super::super::webhooks;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A database with a webhook.
    async fn scene() -> (Database, Uuid) {
        let database = Database::new().await;
        let keyring = Keyring::open(database.pool(), None).await.unwrap();
        let types = ["user.registered".to_owned()];
        let made = webhooks::add(database.pool(), &keyring, "http://127.0.0.1:9/", &types, None, &[]).await;
        (database, made.unwrap().0)
    }

    /// One delivery a second, the newest written down just now: they are known by the seconds that they wait.
    async fn waiting(database: &Database, webhook: Uuid, many: i32) {
        sqlx::query(
            "INSERT INTO state.deliveries (event_id, target_id, kind, event_type, body, seq, at, due_at, since) \
             SELECT gen_random_uuid(), $1, 'webhook', 'user.registered', '{}', n, t, t, t \
               FROM (SELECT n, now() - n * interval '1 second' AS t FROM generate_series(0, $2) AS n) AS s",
        )
        .bind(webhook)
        .bind(many - 1)
        .execute(database.pool())
        .await
        .unwrap();
    }

    async fn left(database: &Database, query: &'static str) -> Vec<i64> {
        sqlx::query_scalar(query).fetch_all(database.pool()).await.unwrap()
    }

    const WAITING: &str = "SELECT seq FROM state.deliveries ORDER BY seq";
    const DEAD: &str = "SELECT seq FROM state.dead_deliveries ORDER BY seq";

    #[tokio::test]
    async fn the_oldest_of_too_many_are_dead_letters_and_of_these_the_oldest_are_lost() {
        let (database, webhook) = scene().await;
        waiting(&database, webhook, 10).await;
        let most = Most { waiting: 6, age: SECOND * 3600, dead: 3 };
        let trimmed = trim(database.pool(), &most).await.unwrap();
        assert_eq!(trimmed, [Overflow { webhook, given_up: 4, lost: 1 }]);
        assert_eq!(left(&database, WAITING).await, [0, 1, 2, 3, 4, 5]);
        assert_eq!(left(&database, DEAD).await, [6, 7, 8]);
        let dead = webhooks::failed(database.pool(), Some(webhook), 10).await.unwrap();
        assert!(dead.iter().all(|dead| dead.error == "too many wait" && dead.attempts == 0), "{dead:?}");
        assert_eq!(trim(database.pool(), &most).await.unwrap(), []);
    }

    #[tokio::test]
    async fn what_waits_too_long_is_a_dead_letter_and_waits_anew_once_it_is_tried_again() {
        let (database, webhook) = scene().await;
        waiting(&database, webhook, 10).await;
        let most = Most { waiting: 10, age: SECOND * 1000, dead: 10 };
        sqlx::query("UPDATE state.deliveries SET since = since - interval '1000 seconds' WHERE seq > 7")
            .execute(database.pool())
            .await
            .unwrap();
        assert_eq!(trim(database.pool(), &most).await.unwrap(), [Overflow { webhook, given_up: 2, lost: 0 }]);
        assert_eq!(left(&database, DEAD).await, [8, 9]);
        let dead = webhooks::failed(database.pool(), Some(webhook), 10).await.unwrap();
        assert!(dead.iter().all(|dead| dead.error == "waited too long"), "{dead:?}");
        assert_eq!(webhooks::retry(database.pool(), Some(webhook)).await.unwrap(), 2);
        assert_eq!(trim(database.pool(), &most).await.unwrap(), []);
        assert_eq!(left(&database, WAITING).await.len(), 10);
    }

    #[tokio::test]
    async fn what_may_be_under_way_is_left_to_whoever_sends_it() {
        let (database, webhook) = scene().await;
        waiting(&database, webhook, 4).await;
        sqlx::query("UPDATE state.deliveries SET attempts = 1, due_at = now() + interval '15 seconds' WHERE seq = 3")
            .execute(database.pool())
            .await
            .unwrap();
        let most = Most { waiting: 2, age: SECOND * 3600, dead: 10 };
        assert_eq!(trim(database.pool(), &most).await.unwrap(), [Overflow { webhook, given_up: 2, lost: 0 }]);
        assert_eq!(left(&database, WAITING).await, [0, 3]);
    }
}
