//! Conversations of one's own.

mod list;
mod members;
mod one;
mod receipts;

use schemas::rest::Conversation;
use schemas::{Kind, Role};
use sqlx::Row;
use sqlx::postgres::PgRow;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::messages;
use crate::page::unsigned;
use crate::rows::{named, nothing};
use crate::state::QueryState;

pub(crate) fn router() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new()
        .routes(routes!(list::list))
        .routes(routes!(one::one))
        .routes(routes!(members::members))
        .routes(routes!(receipts::receipts))
}

/// What [`conversation`] reads of a row of `mine`: the caller's memberships with their conversations.
///
/// `mine` has the columns of [`mine_columns`]; `unread` counts what stands beyond the own watermark, and so never what
/// was said before one joined.
macro_rules! conversation_columns {
    () => {
        concat!(
            "mine.conversation_id, mine.type, mine.name, mine.role, mine.member_count, mine.last_seq,
             (SELECT count(*) FROM read.timeline u
               WHERE u.conversation_id = mine.conversation_id AND u.seq > mine.read_to
                 AND u.message_id IS NOT NULL AND u.sender_id <> mine.user_id) AS unread,
             mine.delivered_to, mine.read_to, mine.updated_at, mine.left_seq, ",
            crate::messages::message_columns!(),
            ", ",
            crate::messages::status_column!(),
            " FROM mine LEFT JOIN read.timeline t
                ON t.conversation_id = mine.conversation_id AND t.seq = mine.last_message_seq
               AND (mine.history = 'all' OR t.seq > mine.joined_seq)"
        )
    };
}
use conversation_columns;

/// The caller's side of a membership `m`, joined with its receipt `r` and conversation `c`.
macro_rules! mine_columns {
    () => {
        "c.conversation_id, c.type, c.name, c.history, c.member_count, c.last_seq, c.last_message_seq, c.updated_at,
         m.user_id, m.role, m.joined_seq, m.left_seq,
         coalesce(r.delivered_to, m.joined_seq) AS delivered_to, coalesce(r.read_to, m.joined_seq) AS read_to"
    };
}
use mine_columns;

/// Whether the caller has left.
const LEFT_SEQ: usize = 10;
/// Where the columns of the last message begin.
const LAST_MESSAGE: usize = 11;

fn conversation(row: &PgRow) -> Result<Conversation, sqlx::Error> {
    let last_message = if nothing(row, LAST_MESSAGE)? { None } else { Some(messages::view(row, LAST_MESSAGE)?) };
    Ok(Conversation {
        conversation_id: row.try_get(0)?,
        kind: named(row, 1, Kind::from_text)?,
        name: row.try_get(2)?,
        role: named(row, 3, Role::from_text)?,
        member_count: row.try_get::<i32, _>(4)?.try_into().unwrap_or(0),
        last_message,
        last_seq: unsigned(row.try_get(5)?),
        unread: unsigned(row.try_get(6)?),
        delivered_to: unsigned(row.try_get(7)?),
        read_to: unsigned(row.try_get(8)?),
        updated_at: row.try_get(9)?,
    })
}
