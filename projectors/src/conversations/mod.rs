//! Projection `conversations`: each conversation with its head, and who is or was in it.

mod members;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use schemas::{Body, ConversationCreated, Event, History, Numbered, Record, Topic};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::bigint;
use crate::projection::{ApplyError, Consumer, Description, Projection};

/// See the module.
pub(crate) struct Conversations;

/// What a batch says of one conversation.
struct Change<'a> {
    created: Option<&'a ConversationCreated>,
    name: Option<&'a str>,
    history: Option<History>,
    /// Whether its members have to be counted again.
    members: bool,
    last_seq: u64,
    last_message_seq: Option<u64>,
    updated_at: OffsetDateTime,
}

#[async_trait]
impl Projection for Conversations {
    fn describe(&self) -> Description {
        Description {
            name: "conversations",
            consumer: Consumer::ReadModels,
            topics: &[Topic::Conversations],
            tables: &["conversations", "members"],
        }
    }

    async fn apply(&self, connection: &mut PgConnection, batch: &[Arc<Record>]) -> Result<(), ApplyError> {
        // Members first: they are counted.
        members::apply(connection, batch).await?;
        let changes = collapse(batch);
        create(connection, changes.iter().filter_map(|(id, change)| Some((*id, change.created?, change)))).await?;
        change(connection, changes.iter().filter(|(_, change)| change.created.is_none())).await
    }
}

fn numbered(record: &Record) -> Option<&Numbered> {
    match &record.event {
        Event::Numbered(numbered) => Some(numbered),
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
        | Event::SessionReuseDetected(_) => None,
    }
}

fn collapse(batch: &[Arc<Record>]) -> HashMap<Uuid, Change<'_>> {
    let mut changes: HashMap<Uuid, Change<'_>> = HashMap::new();
    for event in batch.iter().filter_map(|record| numbered(record)) {
        let change = changes.entry(event.conversation_id).or_insert(Change {
            created: None,
            name: None,
            history: None,
            members: false,
            last_seq: 0,
            last_message_seq: None,
            updated_at: event.at,
        });
        change.last_seq = event.seq;
        change.updated_at = event.at;
        match &event.body {
            Body::Created(created) => {
                change.created = Some(created);
                change.name = created.name.as_deref();
                change.history = Some(created.history);
                change.members = true;
            }
            Body::Renamed(renamed) => change.name = Some(&renamed.name),
            Body::SettingsChanged(settings) => change.history = Some(settings.history),
            Body::MemberJoined(_) | Body::MemberLeft(_) => change.members = true,
            Body::MemberRoleChanged(_) => {}
            Body::MessageSent(_) => change.last_message_seq = Some(event.seq),
        }
    }
    changes
}

async fn create<'a>(
    connection: &mut PgConnection,
    created: impl Iterator<Item = (Uuid, &'a ConversationCreated, &'a Change<'a>)>,
) -> Result<(), ApplyError> {
    let created: Vec<_> = created.collect();
    if created.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = created.iter().map(|(id, ..)| *id).collect();
    let kinds: Vec<&str> = created.iter().map(|(_, created, _)| created.kind.as_str()).collect();
    let names: Vec<Option<&str>> = created.iter().map(|(.., change)| change.name).collect();
    let histories: Vec<&str> =
        created.iter().map(|(_, created, change)| change.history.unwrap_or(created.history).as_str()).collect();
    let last: Vec<i64> = created.iter().map(|(.., change)| bigint(change.last_seq)).collect();
    let messages: Vec<Option<i64>> = created.iter().map(|(.., change)| change.last_message_seq.map(bigint)).collect();
    let times: Vec<_> = created.iter().map(|(.., change)| change.updated_at).collect();
    sqlx::query(
        "INSERT INTO conversations \
                (conversation_id, type, name, history, member_count, last_seq, last_message_seq, updated_at) \
         SELECT id, type, name, history, \
                (SELECT count(*) FROM members m WHERE m.conversation_id = u.id AND m.left_seq IS NULL), \
                last_seq, message_seq, at \
           FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::timestamptz[]) \
             AS u(id, type, name, history, last_seq, message_seq, at) \
         ON CONFLICT (conversation_id) DO NOTHING",
    )
    .bind(ids)
    .bind(kinds)
    .bind(names)
    .bind(histories)
    .bind(last)
    .bind(messages)
    .bind(times)
    .execute(connection)
    .await?;
    Ok(())
}

async fn change<'a>(
    connection: &mut PgConnection,
    changes: impl Iterator<Item = (&'a Uuid, &'a Change<'a>)>,
) -> Result<(), ApplyError> {
    let changes: Vec<_> = changes.collect();
    if changes.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = changes.iter().map(|(id, _)| **id).collect();
    let names: Vec<Option<&str>> = changes.iter().map(|(_, change)| change.name).collect();
    let histories: Vec<Option<&str>> = changes.iter().map(|(_, change)| change.history.map(History::as_str)).collect();
    let members: Vec<bool> = changes.iter().map(|(_, change)| change.members).collect();
    let last: Vec<i64> = changes.iter().map(|(_, change)| bigint(change.last_seq)).collect();
    let messages: Vec<Option<i64>> = changes.iter().map(|(_, change)| change.last_message_seq.map(bigint)).collect();
    let times: Vec<_> = changes.iter().map(|(_, change)| change.updated_at).collect();
    sqlx::query(
        "UPDATE conversations c \
            SET name = coalesce(u.name, c.name), history = coalesce(u.history, c.history), \
                member_count = CASE WHEN u.members \
                    THEN (SELECT count(*) FROM members m WHERE m.conversation_id = u.id AND m.left_seq IS NULL) \
                    ELSE c.member_count END, \
                last_seq = u.last_seq, last_message_seq = coalesce(u.message_seq, c.last_message_seq), \
                updated_at = u.at \
           FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bool[], $5::bigint[], $6::bigint[], $7::timestamptz[]) \
             AS u(id, name, history, members, last_seq, message_seq, at) \
          WHERE c.conversation_id = u.id AND c.last_seq < u.last_seq",
    )
    .bind(ids)
    .bind(names)
    .bind(histories)
    .bind(members)
    .bind(last)
    .bind(messages)
    .bind(times)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use schemas::Role;

    use super::*;
    use crate::testing::{Bench, Room, ann, ben, cleo};

    type Row = (String, Option<String>, String, i32, i64, Option<i64>, OffsetDateTime);
    const ROW: &str =
        "SELECT type, name, history, member_count, last_seq, last_message_seq, updated_at FROM conversations";
    const MEMBERS: &str = "SELECT user_id, joined_seq, left_seq, role FROM members ORDER BY joined_seq, user_id";

    #[tokio::test]
    async fn numbered_events_move_the_conversation() {
        let bench = Bench::new(&Conversations).await;
        let mut room = Room::new(5);
        bench.keep(room.created(&[(ann(), Role::Owner), (ben(), Role::Member)]));
        bench.keep(room.said(ann()));
        bench.apply().await;
        bench.keep(room.renamed("attic"));
        bench.keep(room.history(History::SinceJoin));
        bench.keep(room.joined(cleo(), Role::Member));
        let last = bench.keep(room.left(ben())).at;
        bench.keep(room.delivered(ann(), 2, 0));
        bench.apply().await;
        let rows: Vec<Row> = bench.rows(ROW).await;
        assert_eq!(rows, [("group".into(), Some("attic".into()), "since_join".into(), 2, 6, Some(2), last)]);
    }

    #[tokio::test]
    async fn every_stay_is_a_row() {
        let bench = Bench::new(&Conversations).await;
        let mut room = Room::new(5);
        bench.keep(room.created(&[(ann(), Role::Owner), (ben(), Role::Member)]));
        bench.apply().await;
        // The stay of before is changed and ends, one begins and ends within the batch, and one goes on.
        bench.keep(room.role(ben(), Role::Admin));
        bench.keep(room.left(ben()));
        bench.keep(room.joined(ben(), Role::Member));
        bench.keep(room.left(ben()));
        bench.keep(room.joined(ben(), Role::Member));
        bench.keep(room.role(ben(), Role::Admin));
        bench.apply().await;
        bench.keep(room.role(ben(), Role::Owner));
        bench.apply().await;
        let rows: Vec<(Uuid, i64, Option<i64>, String)> = bench.rows(MEMBERS).await;
        assert_eq!(
            rows,
            [
                (ann(), 0, None, "owner".into()),
                (ben(), 0, Some(3), "admin".into()),
                (ben(), 4, Some(5), "member".into()),
                (ben(), 6, None, "owner".into()),
            ]
        );
        let rows: Vec<Row> = bench.rows(ROW).await;
        assert_eq!(rows[0].3, 2);
    }
}
