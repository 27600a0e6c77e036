//! Projection `timeline`: every numbered event of every conversation, messages in columns.

use std::sync::Arc;

use async_trait::async_trait;
use schemas::{Body, Event, Message, Numbered, Record, Topic};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::database::{bigint, smallint};
use crate::projection::{ApplyError, Consumer, Description, Projection};

/// See the module.
pub(crate) struct Timeline;

#[async_trait]
impl Projection for Timeline {
    fn describe(&self) -> Description {
        Description {
            name: "timeline",
            consumer: Consumer::ReadModels,
            topics: &[Topic::Conversations],
            tables: &["timeline"],
        }
    }

    async fn apply(&self, connection: &mut PgConnection, batch: &[Arc<Record>]) -> Result<(), ApplyError> {
        let mut messages = Vec::with_capacity(batch.len());
        let mut others = Vec::new();
        for record in batch {
            match &record.event {
                Event::Numbered(event) => match &event.body {
                    Body::MessageSent(message) => messages.push((&**record, event, &**message)),
                    Body::Created(_)
                    | Body::Renamed(_)
                    | Body::SettingsChanged(_)
                    | Body::MemberJoined(_)
                    | Body::MemberLeft(_)
                    | Body::MemberRoleChanged(_) => others.push((&**record, event)),
                },
                Event::MessageDelivered(_)
                | Event::MessageRead(_)
                | Event::UserRegistered(_)
                | Event::UserProfileChanged(_)
                | Event::UserPasswordChanged(_)
                | Event::UserRoleGranted(_)
                | Event::UserRoleRevoked(_)
                | Event::AuditRead(_)
                | Event::SessionStarted(_)
                | Event::SessionRefreshed(_)
                | Event::SessionRevoked(_)
                | Event::SessionReuseDetected(_) => {}
            }
        }
        add_messages(connection, &messages).await?;
        add_others(connection, &others).await
    }
}

async fn add_messages(
    connection: &mut PgConnection,
    messages: &[(&Record, &Numbered, &Message)],
) -> Result<(), ApplyError> {
    if messages.is_empty() {
        return Ok(());
    }
    let conversations: Vec<Uuid> = messages.iter().map(|(_, event, _)| event.conversation_id).collect();
    let seqs: Vec<i64> = messages.iter().map(|(_, event, _)| bigint(event.seq)).collect();
    let positions: Vec<i64> = messages.iter().map(|(record, ..)| bigint(record.position)).collect();
    let times: Vec<_> = messages.iter().map(|(_, event, _)| event.at).collect();
    let shards: Vec<i16> = messages.iter().map(|(record, ..)| smallint(record.shard)).collect();
    let ids: Vec<Uuid> = messages.iter().map(|(.., message)| message.message_id).collect();
    let senders: Vec<Uuid> = messages.iter().map(|(.., message)| message.sender_id).collect();
    let kinds: Vec<&str> = messages.iter().map(|(.., message)| message.kind.as_str()).collect();
    let contents: Vec<Option<&str>> = messages.iter().map(|(.., message)| message.content.as_deref()).collect();
    let replies: Vec<Option<Uuid>> = messages.iter().map(|(.., message)| message.reply_to).collect();
    let mentions: Vec<Option<String>> = messages.iter().map(|(.., message)| array(&message.mentions)).collect();
    sqlx::query(
        "INSERT INTO timeline (conversation_id, seq, position, at, topic_shard, message_id, sender_id, type, content, \
                               reply_to, mentions) \
         SELECT conversation_id, seq, position, at, shard, message_id, sender_id, type, content, reply_to, \
                mentions::uuid[] \
           FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::smallint[], $6::uuid[], \
                       $7::uuid[], $8::text[], $9::text[], $10::uuid[], $11::text[]) \
             AS u(conversation_id, seq, position, at, shard, message_id, sender_id, type, content, reply_to, mentions) \
         ON CONFLICT (conversation_id, seq) DO NOTHING",
    )
    .bind(conversations)
    .bind(seqs)
    .bind(positions)
    .bind(times)
    .bind(shards)
    .bind(ids)
    .bind(senders)
    .bind(kinds)
    .bind(contents)
    .bind(replies)
    .bind(mentions)
    .execute(connection)
    .await?;
    Ok(())
}

async fn add_others(connection: &mut PgConnection, events: &[(&Record, &Numbered)]) -> Result<(), ApplyError> {
    if events.is_empty() {
        return Ok(());
    }
    let conversations: Vec<Uuid> = events.iter().map(|(_, event)| event.conversation_id).collect();
    let seqs: Vec<i64> = events.iter().map(|(_, event)| bigint(event.seq)).collect();
    let positions: Vec<i64> = events.iter().map(|(record, _)| bigint(record.position)).collect();
    let times: Vec<_> = events.iter().map(|(_, event)| event.at).collect();
    let shards: Vec<i16> = events.iter().map(|(record, _)| smallint(record.shard)).collect();
    let types: Vec<&str> = events.iter().map(|(_, event)| event.body.event_type()).collect();
    let data = events.iter().map(|(_, event)| serde_json::to_string(&event.body)).collect::<Result<Vec<_>, _>>();
    let data = data.map_err(|_| ApplyError::Poison("its data has no JSON form".to_owned()))?;
    sqlx::query(
        "INSERT INTO timeline (conversation_id, seq, position, at, topic_shard, event, data) \
         SELECT conversation_id, seq, position, at, shard, event, data::json \
           FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::smallint[], $6::text[], \
                       $7::text[]) AS u(conversation_id, seq, position, at, shard, event, data) \
         ON CONFLICT (conversation_id, seq) DO NOTHING",
    )
    .bind(conversations)
    .bind(seqs)
    .bind(positions)
    .bind(times)
    .bind(shards)
    .bind(types)
    .bind(data)
    .execute(connection)
    .await?;
    Ok(())
}

/// PostgreSQL's text form of an array of ids, since arrays of arrays are rectangles there; null for none.
fn array(ids: &[Uuid]) -> Option<String> {
    let texts = ids.iter().map(Uuid::to_string).collect::<Vec<_>>();
    (!ids.is_empty()).then(|| format!("{{{}}}", texts.join(",")))
}

#[cfg(test)]
mod tests {
    use schemas::Role;

    use super::*;
    use crate::testing::{Bench, Room, ann, ben};

    type Row = (i64, i64, i16, Uuid, String, Option<Uuid>, Option<Vec<Uuid>>);

    #[tokio::test]
    async fn messages_stand_in_columns_and_the_others_as_their_data() {
        let bench = Bench::new(&Timeline).await;
        let mut room = Room::new(5);
        bench.keep(room.created(&[(ann(), Role::Owner), (ben(), Role::Member)]));
        let plain = bench.keep(room.said(ann()));
        let answer = bench.keep(room.said_with(ben(), |message| {
            message.reply_to = Some(ann());
            message.mentions = vec![ann(), ben()];
        }));
        bench.keep(room.read(ben(), 2, 2));
        bench.apply().await;
        let messages: Vec<Row> = bench
            .rows(
                "SELECT seq, position, topic_shard, sender_id, content, reply_to, mentions FROM timeline \
                  WHERE event IS NULL ORDER BY seq",
            )
            .await;
        let place = |record: &Record| (bigint(record.position), smallint(record.shard));
        let (first, second) = (place(&plain), place(&answer));
        assert_eq!(
            messages,
            [
                (2, first.0, first.1, ann(), "word 2".into(), None, None),
                (3, second.0, second.1, ben(), "word 3".into(), Some(ann()), Some(vec![ann(), ben()])),
            ]
        );
        let others: Vec<(i64, String, serde_json::Value)> =
            bench.rows("SELECT seq, event, data FROM timeline WHERE event IS NOT NULL").await;
        assert_eq!((others[0].0, &*others[0].1, &others[0].2["type"]), (1, "conversation.created", &"group".into()));
    }
}
