//! From a message to those who are to be pushed: its members who are away, found once the read models have got there.

use std::collections::HashSet;
use std::time::Duration;

use platform::live::{Device, LiveBus};
use schemas::rfc3339_ms;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::push::Told;

/// Messages at once, and their members together: conversations may have thousands of them.
const AT_ONCE: i64 = 500;
const MEMBERS: i64 = 20_000;

/// So long it is waited for the live bus to tell who is connected; then everybody counts as away.
const PATIENCE: Duration = Duration::from_secs(10);

/// A message of which nobody was told yet.
#[derive(sqlx::FromRow)]
struct Said {
    event_id: Uuid,
    conversation_id: Uuid,
    seq: i64,
    message_id: Uuid,
    sender_id: Uuid,
    at: OffsetDateTime,
    traceparent: Option<String>,
    /// As far as it is known.
    members: i64,
}

/// A subscription of a member, who may be away.
#[derive(sqlx::FromRow)]
struct Candidate {
    #[sqlx(rename = "event_id")]
    event: Uuid,
    #[sqlx(rename = "target_id")]
    target: Uuid,
    #[sqlx(rename = "user_id")]
    user: Uuid,
}

/// Writes down pushes of some messages, to be sent after `delay`; how many messages there were. What is older than
/// `max_age` is dropped, whether the read models have it or not.
pub(super) async fn spread(
    pool: &PgPool,
    live: &dyn LiveBus,
    delay: Duration,
    max_age: Duration,
) -> Result<usize, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let mut messages: Vec<Said> = sqlx::query_as(
        "SELECT event_id, conversation_id, seq, message_id, sender_id, at, traceparent, \
                coalesce((SELECT c.member_count FROM read.conversations c \
                           WHERE c.conversation_id = e.conversation_id), 0)::bigint AS members \
           FROM state.notifiable_messages e \
          WHERE e.at < now() - $1 \
             OR EXISTS (SELECT FROM read.checkpoints c \
                         WHERE c.projection = 'conversations' AND c.topic = e.topic AND c.shard = e.shard \
                           AND c.position >= e.position) \
          ORDER BY event_id LIMIT $2 FOR UPDATE OF e SKIP LOCKED",
    )
    .bind(max_age)
    .bind(AT_ONCE)
    .fetch_all(&mut *transaction)
    .await?;
    if messages.is_empty() {
        return Ok(0);
    }
    let first = first_few(messages.iter().map(|message| message.members));
    messages.truncate(first);
    let now = OffsetDateTime::now_utc();
    let oldest = now - max_age;
    let (recent, stale): (Vec<&Said>, Vec<&Said>) = messages.iter().partition(|message| message.at >= oldest);
    metrics::counter!("parlance_notifications_quiet_total", "reason" => "stale").increment(stale.len() as u64);
    let candidates = candidates(&mut transaction, &recent).await?;
    let online = online(&mut transaction, live, &candidates).await?;
    let settled = |message: &&Said| online.is_some() || message.at < now - PATIENCE;
    let settled: Vec<&Said> = recent.into_iter().filter(settled).collect();
    let is_away = |one: &&Candidate| online.as_ref().is_none_or(|online| !online.contains(&one.user));
    let away: Vec<&Candidate> = candidates.iter().filter(is_away).collect();
    let connected = candidates.len() - away.len();
    metrics::counter!("parlance_notifications_quiet_total", "reason" => "online").increment(connected as u64);
    write(&mut transaction, &settled, &away, delay).await?;
    let done: Vec<Uuid> = settled.into_iter().chain(stale).map(|message| message.event_id).collect();
    sqlx::query("DELETE FROM state.notifiable_messages WHERE event_id = ANY($1)")
        .bind(&done)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(done.len())
}

/// How many messages have not too many members together: one at least.
fn first_few(members: impl Iterator<Item = i64>) -> usize {
    let sums = members.scan(0_i64, |sum, members| {
        *sum = sum.saturating_add(members);
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= MEMBERS).count().max(1)
}

/// The subscriptions of those who were members then and still are, without the sender.
async fn candidates(connection: &mut PgConnection, messages: &[&Said]) -> Result<Vec<Candidate>, sqlx::Error> {
    sqlx::query_as(
        "SELECT e.event_id, s.target_id, s.user_id \
           FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::uuid[]) \
                AS e(event_id, conversation_id, seq, sender_id) \
           JOIN read.members m ON m.conversation_id = e.conversation_id AND m.joined_seq < e.seq \
                              AND m.left_seq IS NULL AND m.user_id <> e.sender_id \
           JOIN state.push_subscriptions s ON s.user_id = m.user_id AND s.expires_at > now() \
          WHERE NOT EXISTS (SELECT FROM state.revoked_sessions r WHERE r.session_id = s.session_id)",
    )
    .bind(messages.iter().map(|message| message.event_id).collect::<Vec<_>>())
    .bind(messages.iter().map(|message| message.conversation_id).collect::<Vec<_>>())
    .bind(messages.iter().map(|message| message.seq).collect::<Vec<_>>())
    .bind(messages.iter().map(|message| message.sender_id).collect::<Vec<_>>())
    .fetch_all(connection)
    .await
}

/// Those who have a device connected; `None` where that cannot be told just now.
///
/// By the devices of their sessions, and those that said their first hello so lately that the read model may not know them.
async fn online(
    connection: &mut PgConnection,
    live: &dyn LiveBus,
    candidates: &[Candidate],
) -> Result<Option<HashSet<Uuid>>, sqlx::Error> {
    let users: HashSet<Uuid> = candidates.iter().map(|candidate| candidate.user).collect();
    if users.is_empty() {
        return Ok(Some(HashSet::new()));
    }
    let devices: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "SELECT user_id, device_id FROM read.sessions WHERE user_id = ANY($1) \
         UNION SELECT user_id, device_id FROM state.devices \
                WHERE user_id = ANY($1) AND first_hello_at > now() - interval '10 minutes'",
    )
    .bind(users.into_iter().collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let devices: Vec<Device> = devices.into_iter().map(|(user_id, device_id)| Device { user_id, device_id }).collect();
    let connected = live.connected_of(&devices).await;
    Ok(connected.map(|connected| connected.into_iter().map(|device| device.user_id).collect()))
}

async fn write(
    connection: &mut PgConnection,
    messages: &[&Said],
    away: &[&Candidate],
    delay: Duration,
) -> Result<(), sqlx::Error> {
    if away.is_empty() {
        return Ok(());
    }
    let told = |message: &&Said| {
        let told = Told {
            kind: "message.sent".to_owned(),
            event_id: message.event_id,
            conversation_id: message.conversation_id,
            seq: message.seq.cast_unsigned(),
            message_id: message.message_id,
            sender_id: message.sender_id,
            sent_at: rfc3339_ms::Display(message.at).to_string(),
            content: None,
            traceparent: message.traceparent.clone(),
        };
        serde_json::to_string(&told).expect("text and numbers are JSON")
    };
    sqlx::query(
        "INSERT INTO state.deliveries \
                (event_id, target_id, kind, event_type, body, user_id, conversation_id, seq, at, due_at) \
         SELECT e.event_id, p.target_id, 'push', 'message.sent', e.body::json, p.user_id, e.conversation_id, e.seq, \
                e.at, now() + $9 \
           FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS p(event_id, target_id, user_id) \
           JOIN unnest($4::uuid[], $5::uuid[], $6::bigint[], $7::timestamptz[], $8::text[]) \
                AS e(event_id, conversation_id, seq, at, body) USING (event_id) \
         ON CONFLICT DO NOTHING",
    )
    .bind(away.iter().map(|one| one.event).collect::<Vec<_>>())
    .bind(away.iter().map(|one| one.target).collect::<Vec<_>>())
    .bind(away.iter().map(|one| one.user).collect::<Vec<_>>())
    .bind(messages.iter().map(|message| message.event_id).collect::<Vec<_>>())
    .bind(messages.iter().map(|message| message.conversation_id).collect::<Vec<_>>())
    .bind(messages.iter().map(|message| message.seq).collect::<Vec<_>>())
    .bind(messages.iter().map(|message| message.at).collect::<Vec<_>>())
    .bind(messages.iter().map(told).collect::<Vec<_>>())
    .bind(delay)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use platform::live::{Connected, InProcessLive, RedisLive};
    use platform::redis::Redis;
    use testkit::{Database, eventually, redis::Redis as Server};

    use super::*;

    const BOUND: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn many_messages_are_taken_at_once() {
        let database = Database::new().await;
        sqlx::query(
            "INSERT INTO state.notifiable_messages \
             SELECT gen_random_uuid(), 1, 0, n, gen_random_uuid(), n, gen_random_uuid(), gen_random_uuid(), \
                    now() - interval '1 hour' \
               FROM generate_series(1, 600) AS n",
        )
        .execute(database.pool())
        .await
        .unwrap();
        let (live, max_age) = (InProcessLive::default(), Duration::from_mins(1));
        for expected in [500, 100, 0] {
            assert_eq!(spread(database.pool(), &live, Duration::ZERO, max_age).await.unwrap(), expected);
        }
    }

    async fn deliveries(database: &Database) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM state.deliveries").fetch_one(database.pool()).await.unwrap()
    }

    #[tokio::test]
    async fn who_tells_who_is_connected_is_waited_for_but_not_for_ever() {
        let (database, server) = (Database::new().await, Server::start().unwrap());
        let redis = Redis::connect_within(&server.url().into(), BOUND, "test:").await.unwrap();
        let live = RedisLive::start(redis);
        let [user_id, device_id, connection_id] = [1, 2, 3].map(Uuid::from_u128);
        let here = Connected { user_id, device_id, connection_id };
        assert!(live.connected(here).await);
        // Known by the first hello alone: the read model lags behind.
        let rows = "
            CREATE TEMPORARY VIEW ids AS SELECT lpad('1', 32, '0')::uuid AS one, lpad('2', 32, '0')::uuid AS two;
            INSERT INTO state.devices SELECT one, two FROM ids;
            INSERT INTO read.members SELECT two, one, 0, NULL, 'member', now() FROM ids;
            INSERT INTO state.push_subscriptions
                   (user_id, subscription_id, session_id, sealed, endpoint_hash, service, expires_at)
            SELECT one, two, two, '', '', 'https://push.example.org', now() + interval '1 day' FROM ids;
            INSERT INTO read.checkpoints VALUES ('conversations', 1, 0, 9);
            INSERT INTO state.notifiable_messages
            SELECT gen_random_uuid(), 1, 0, n, two, n, gen_random_uuid(), gen_random_uuid(),
                   now() - (n - 1) * interval '11 seconds'
              FROM ids, generate_series(1, 2) AS n";
        sqlx::raw_sql(rows).execute(database.pool()).await.unwrap();
        server.kill().unwrap();
        let spread = async || spread(database.pool(), &live, Duration::ZERO, BOUND).await.unwrap();
        assert_eq!((spread().await, deliveries(&database).await), (1, 1), "the older one");
        assert_eq!((spread().await, deliveries(&database).await), (0, 1));
        server.start_again().unwrap();
        eventually("it is said again", BOUND, async || live.connected(here).await).await;
        assert_eq!((spread().await, deliveries(&database).await), (1, 1), "and told nobody");
    }

    #[test]
    fn few_are_taken_of_large_conversations_but_one_always() {
        assert_eq!(first_few([2; 500].into_iter()), 500);
        assert_eq!(first_few([5_000; 500].into_iter()), 4);
        assert_eq!(first_few([50_000, 1].into_iter()), 1);
    }
}
