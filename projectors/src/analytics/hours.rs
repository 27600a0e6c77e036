//! Messages by hour, of each conversation, and of all in each shard.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::course::Sent;
use crate::database::smallint;
use crate::projection::ApplyError;

const HOUR_S: i64 = 3600;

/// When the hour began, in seconds since 1970.
pub(super) fn hour(at_ms: i64) -> i64 {
    at_ms.div_euclid(1000 * HOUR_S) * HOUR_S
}

/// Counts what was sent.
pub(super) async fn add(connection: &mut PgConnection, sent: &[Sent]) -> Result<(), ApplyError> {
    if sent.is_empty() {
        return Ok(());
    }
    let mut by_conversation: HashMap<(Uuid, i64), i64> = HashMap::new();
    let mut by_shard: HashMap<(u16, i64), i64> = HashMap::new();
    for message in sent {
        let hour = hour(message.at_ms);
        *by_conversation.entry((message.conversation_id, hour)).or_default() += 1;
        *by_shard.entry((message.shard, hour)).or_default() += 1;
    }
    let (conversations, hours, counts): (Vec<Uuid>, Vec<i64>, Vec<i64>) =
        by_conversation.into_iter().map(|((conversation, hour), count)| (conversation, hour, count)).collect();
    sqlx::query(
        "INSERT INTO analytics_messages_by_hour AS t (conversation_id, hour, messages) \
         SELECT conversation_id, to_timestamp(hour), messages \
           FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS u(conversation_id, hour, messages) \
         ON CONFLICT (conversation_id, hour) DO UPDATE SET messages = t.messages + excluded.messages",
    )
    .bind(conversations)
    .bind(hours)
    .bind(counts)
    .execute(&mut *connection)
    .await?;
    let (shards, hours, counts): (Vec<i16>, Vec<i64>, Vec<i64>) =
        by_shard.into_iter().map(|((shard, hour), count)| (smallint(shard), hour, count)).collect();
    sqlx::query(
        "INSERT INTO analytics_messages_by_hour_in_all AS t (shard, hour, messages) \
         SELECT shard, to_timestamp(hour), messages \
           FROM unnest($1::smallint[], $2::bigint[], $3::bigint[]) AS u(shard, hour, messages) \
         ON CONFLICT (hour, shard) DO UPDATE SET messages = t.messages + excluded.messages",
    )
    .bind(shards)
    .bind(hours)
    .bind(counts)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_begins_with_itself() {
        assert_eq!([0, 3_599_999, 3_600_000, -1].map(hour), [0, 0, 3600, -3600]);
    }
}
