//! Notifications: members who are away are pushed to, and webhooks are told what happens.
//!
//! A consumer of its own. It keeps no read model: with its checkpoints it writes down what is to be sent (`state`), and
//! [`deliver`] sends it, at least once. Nothing is written down twice, whatever is read again: see `marks`.

mod call;
mod flight;
mod marks;
mod once;
mod outbox;
mod outcome;
mod overflow;
mod pace;
mod push;
mod quiet;
mod spread;
mod webhook;
pub mod webhooks;
mod worker;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemas::{Body, CloudEvent, Event, Message, Record, Topic};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::{bigint, smallint};
use crate::projection::{ApplyError, Consumer, Description, Projection};
pub use worker::{Parts, deliver};

/// What is older is never pushed, whatever the settings: the most that they can say.
const OLDEST_PUSH: Duration = Duration::from_hours(24);

/// See the module.
pub(crate) struct Notifications;

#[async_trait]
impl Projection for Notifications {
    fn describe(&self) -> Description {
        Description { name: "notifications", consumer: Consumer::Notifications, topics: &Topic::ALL, tables: &[] }
    }

    async fn apply(&self, connection: &mut PgConnection, batch: &[Arc<Record>]) -> Result<(), ApplyError> {
        let news = marks::pass(connection, batch).await?;
        let told = tell_webhooks(connection, &news).await?;
        if told + note_messages(connection, &news).await? > 0 {
            pace::wake();
        }
        Ok(())
    }
}

/// Writes down what webhooks want to know, from where each of them began; how many rows.
async fn tell_webhooks(connection: &mut PgConnection, news: &[Arc<Record>]) -> Result<u64, ApplyError> {
    if news.is_empty() {
        return Ok(0);
    }
    let wanted: Vec<String> = sqlx::query_scalar("SELECT DISTINCT unnest(types) FROM state.webhooks WHERE enabled")
        .fetch_all(&mut *connection)
        .await?;
    let wanted: HashSet<&str> = wanted.iter().map(String::as_str).collect();
    let news: Vec<&Arc<Record>> = news.iter().filter(|record| wanted.contains(record.event.event_type())).collect();
    if news.is_empty() {
        return Ok(0);
    }
    // Whoever sends them knows where the schemas are found.
    let body = |record: &&Arc<Record>| serde_json::to_string(&CloudEvent::new(record, "")?);
    let bodies: Result<Vec<String>, serde_json::Error> = news.iter().map(body).collect();
    let bodies = bodies.map_err(|_| ApplyError::Poison("an event that JSON has no form for".to_owned()))?;
    let told = sqlx::query(
        "INSERT INTO state.deliveries (event_id, target_id, kind, event_type, body, at, due_at) \
         SELECT e.event_id, w.webhook_id, 'webhook', e.event_type, e.body::json, e.at, now() \
           FROM unnest($1::uuid[], $2::smallint[], $3::smallint[], $4::bigint[], $5::text[], $6::text[], \
                       $7::timestamptz[]) AS e(event_id, topic, shard, position, event_type, body, at) \
           JOIN state.webhooks w ON w.enabled AND e.event_type = ANY(w.types) \
           JOIN state.webhook_starts s ON s.webhook_id = w.webhook_id AND s.topic = e.topic AND s.shard = e.shard \
          WHERE e.position > s.position \
         ON CONFLICT DO NOTHING",
    )
    .bind(news.iter().map(|record| record.event_id).collect::<Vec<Uuid>>())
    .bind(news.iter().map(|record| record.topic.code()).collect::<Vec<i16>>())
    .bind(news.iter().map(|record| smallint(record.shard)).collect::<Vec<i16>>())
    .bind(news.iter().map(|record| bigint(record.position)).collect::<Vec<i64>>())
    .bind(news.iter().map(|record| record.event.event_type()).collect::<Vec<&str>>())
    .bind(bodies)
    .bind(news.iter().map(|record| record.at).collect::<Vec<OffsetDateTime>>())
    .execute(connection)
    .await?;
    Ok(told.rows_affected())
}

/// Writes down the messages that somebody may want to be pushed: whom, is found once the read models are that far;
/// how many.
async fn note_messages(connection: &mut PgConnection, news: &[Arc<Record>]) -> Result<u64, sqlx::Error> {
    let oldest = OffsetDateTime::now_utc() - OLDEST_PUSH;
    let recent = news.iter().filter(|record| record.at > oldest);
    let messages: Vec<(&Record, &Message)> = recent.filter_map(|record| Some((&**record, message(record)?))).collect();
    if messages.is_empty() {
        return Ok(0);
    }
    let noted = sqlx::query(
        "INSERT INTO state.notifiable_messages \
                (event_id, topic, shard, position, conversation_id, seq, message_id, sender_id, at, traceparent) \
         SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::smallint[], $4::bigint[], $5::uuid[], $6::bigint[], \
                              $7::uuid[], $8::uuid[], $9::timestamptz[], $10::text[]) \
          WHERE EXISTS (SELECT FROM state.push_subscriptions) \
         ON CONFLICT DO NOTHING",
    )
    .bind(messages.iter().map(|(record, _)| record.event_id).collect::<Vec<Uuid>>())
    .bind(messages.iter().map(|(record, _)| record.topic.code()).collect::<Vec<i16>>())
    .bind(messages.iter().map(|(record, _)| smallint(record.shard)).collect::<Vec<i16>>())
    .bind(messages.iter().map(|(record, _)| bigint(record.position)).collect::<Vec<i64>>())
    .bind(messages.iter().map(|(_, message)| message.conversation_id).collect::<Vec<Uuid>>())
    .bind(messages.iter().map(|(_, message)| bigint(message.seq)).collect::<Vec<i64>>())
    .bind(messages.iter().map(|(_, message)| message.message_id).collect::<Vec<Uuid>>())
    .bind(messages.iter().map(|(_, message)| message.sender_id).collect::<Vec<Uuid>>())
    .bind(messages.iter().map(|(record, _)| record.at).collect::<Vec<OffsetDateTime>>())
    .bind(messages.iter().map(|(record, _)| record.trace.as_deref()).collect::<Vec<Option<&str>>>())
    .execute(connection)
    .await?;
    Ok(noted.rows_affected())
}

/// What was said, if that is what happened.
fn message(record: &Record) -> Option<&Message> {
    match &record.event {
        Event::Numbered(event) => match &event.body {
            Body::MessageSent(message) => Some(message),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests;
