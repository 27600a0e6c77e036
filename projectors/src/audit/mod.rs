//! Projection `audit`: who did what to what, when, and from where. One row an event, without a word of what was said.

mod entry;

use std::sync::Arc;

use async_trait::async_trait;
use schemas::{Record, Topic};
use sqlx::PgConnection;

use crate::database::{bigint, smallint};
use crate::projection::{ApplyError, Consumer, Description, Projection};
use entry::Entry;

/// See the module.
pub(crate) struct Audit;

#[async_trait]
impl Projection for Audit {
    fn describe(&self) -> Description {
        Description { name: "audit", consumer: Consumer::Audit, topics: &Topic::ALL, tables: &["audit"] }
    }

    async fn apply(&self, connection: &mut PgConnection, batch: &[Arc<Record>]) -> Result<(), ApplyError> {
        if batch.is_empty() {
            return Ok(());
        }
        let entries: Vec<Entry<'_>> = batch.iter().map(|record| Entry::of(record)).collect();
        // In the select list, sets are unrolled row by row; in FROM, each would be stored first.
        sqlx::query(
            "INSERT INTO audit (topic, shard, position, at, event_id, type, actor, object_type, object, conversation, \
                                session, device, correlation, address, user_agent) \
             SELECT unnest($1::smallint[]), unnest($2::smallint[]), unnest($3::bigint[]), unnest($4::timestamptz[]), \
                    unnest($5::uuid[]), unnest($6::text[]), unnest($7::uuid[]), unnest($8::text[]), unnest($9::uuid[]), \
                    unnest($10::uuid[]), unnest($11::uuid[]), unnest($12::uuid[]), unnest($13::text[]), \
                    unnest($14::text[]), unnest($15::text[]) \
             ON CONFLICT DO NOTHING",
        )
        .bind(column(batch, |record| record.topic.code()))
        .bind(column(batch, |record| smallint(record.shard)))
        .bind(column(batch, |record| bigint(record.position)))
        .bind(column(batch, |record| record.at))
        .bind(column(batch, |record| record.event_id))
        .bind(column(batch, |record| record.event.event_type()))
        .bind(column(&entries, |entry| entry.actor))
        .bind(column(&entries, |entry| entry.object_type))
        .bind(column(&entries, |entry| entry.object))
        .bind(column(&entries, |entry| entry.conversation))
        .bind(column(&entries, |entry| entry.session))
        .bind(column(&entries, |entry| entry.device))
        .bind(column(batch, |record| record.correlation.as_deref()))
        .bind(column(&entries, |entry| entry.address))
        .bind(column(&entries, |entry| entry.user_agent))
        .execute(connection)
        .await?;
        Ok(())
    }
}

fn column<'a, T, C>(rows: &'a [T], of: impl Fn(&'a T) -> C) -> Vec<C> {
    rows.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use schemas::{Event, Role};
    use uuid::Uuid;

    use super::*;
    use crate::testing::{Bench, Room, ann, ben, reading, registered, role, session};

    type Row = (String, Option<Uuid>, String, Uuid, Option<Uuid>, Option<Uuid>, Option<Uuid>, Option<String>);

    #[tokio::test]
    async fn every_event_says_who_did_what_to_what() {
        let bench = Bench::new(&Audit).await;
        let mut room = Room::new(50);
        let (room_id, session_id, device_id) = (room.id, Uuid::from_u128(9), Uuid::from_u128(109));
        for event in [registered(1, "ann"), role(1, true), session(1, 9, Event::SessionStarted), reading(1)] {
            bench.keep(event);
        }
        bench.keep(room.created(&[(ann(), Role::Owner)]));
        bench.keep(room.joined(ben(), Role::Member));
        let said = bench.keep(room.said(ben()));
        bench.keep(room.read(ann(), 3, 3));
        bench.apply().await;
        let Event::Numbered(said) = &said.event else { panic!("a message") };
        let schemas::Body::MessageSent(message) = &said.body else { panic!("a message") };
        let rows: Vec<Row> = bench
            .rows(
                "SELECT type, actor, object_type, object, conversation, session, device, address FROM audit \
                      ORDER BY topic, position",
            )
            .await;
        let row = |kind: &str, actor, object: (&str, Uuid), conversation| {
            (kind.to_owned(), actor, object.0.to_owned(), object.1, conversation, None, None, None)
        };
        let mut expected = vec![
            row("user.registered", Some(ann()), ("user", ann()), None),
            row("user.role_granted", None, ("user", ann()), None),
            row("session.started", Some(ann()), ("session", session_id), None),
            row("user.audit_read", Some(ann()), ("user", ann()), None),
            row("conversation.created", Some(ann()), ("conversation", room_id), Some(room_id)),
            row("conversation.member_joined", Some(ann()), ("user", ben()), Some(room_id)),
            row("message.sent", Some(ben()), ("message", message.message_id), Some(room_id)),
            row("message.read", Some(ann()), ("conversation", room_id), Some(room_id)),
        ];
        (expected[2].5, expected[2].6, expected[2].7) = (Some(session_id), Some(device_id), Some("10.0.0.1".into()));
        assert_eq!(rows, expected);
        let words = bench.rows::<(bool,)>("SELECT audit::text LIKE '%word 3%' FROM audit WHERE type = 'message.sent'");
        assert_eq!(words.await, [(false,)], "nothing of what was said");
    }
}
