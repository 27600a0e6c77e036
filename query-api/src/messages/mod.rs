//! Messages of a conversation.

mod one;
mod page;
mod receipts;

use schemas::Message;
use schemas::rest::{Delivery, MessageView};
use sqlx::Row;
use sqlx::postgres::PgRow;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::page::unsigned;
use crate::state::QueryState;

pub(crate) fn router() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new().routes(routes!(page::page)).routes(routes!(one::one)).routes(routes!(receipts::receipts))
}

/// What [`message`] reads of a row `t` of the timeline.
macro_rules! message_columns {
    () => {
        "t.message_id, t.conversation_id, t.seq, t.sender_id, t.type, t.content, t.reply_to, t.mentions, t.at"
    };
}
pub(crate) use message_columns;

/// The status of a message `t`, as [`delivery`] reads it: see [`crate::status`].
///
/// For one message: it looks for somebody who has not got so far, and stops at the first. Of a page, [`page`] finds out
/// with a single look at all members.
macro_rules! status_column {
    () => {
        concat!(
            "CASE WHEN t.message_id IS NULL THEN NULL
                  WHEN NOT ",
            crate::messages::somebody!("m.joined_seq <= t.seq"),
            " THEN coalesce(",
            crate::messages::status_with_last_to_leave!(),
            ", 0)
                  WHEN ",
            crate::messages::somebody!("coalesce(r.delivered_to, m.joined_seq) < t.seq"),
            " THEN 0
                  WHEN ",
            crate::messages::somebody!("coalesce(r.read_to, m.joined_seq) < t.seq"),
            " THEN 1 ELSE 2 END"
        )
    };
}
pub(crate) use status_column;

/// Whether any member of the present, but for the sender of `t`, is as the condition says.
macro_rules! somebody {
    ($condition:literal) => {
        concat!(
            "EXISTS (SELECT FROM read.members m
                       LEFT JOIN read.receipts r
                         ON r.conversation_id = m.conversation_id AND r.user_id = m.user_id AND r.left_seq IS NULL
                      WHERE m.conversation_id = t.conversation_id AND m.left_seq IS NULL AND m.user_id <> t.sender_id
                        AND ",
            $condition,
            ")"
        )
    };
}
pub(crate) use somebody;

/// How far `t` had got with the last who left of those who were there when it was sent.
macro_rules! status_with_last_to_leave {
    () => {
        "(SELECT CASE WHEN coalesce(r.read_to, m.joined_seq) >= t.seq THEN 2
                      WHEN coalesce(r.delivered_to, m.joined_seq) >= t.seq THEN 1 ELSE 0 END
            FROM read.members m
            LEFT JOIN read.receipts r
              ON r.conversation_id = m.conversation_id AND r.user_id = m.user_id AND r.left_seq = m.left_seq
           WHERE m.conversation_id = t.conversation_id AND m.joined_seq <= t.seq AND m.left_seq > t.seq
             AND m.user_id <> t.sender_id
           ORDER BY m.left_seq DESC LIMIT 1)"
    };
}
pub(crate) use status_with_last_to_leave;

/// How many columns [`message`] reads.
const MESSAGE_COLUMNS: usize = 9;

/// A message whose columns begin at `from`, as it is shown with its status.
pub(crate) fn view(row: &PgRow, from: usize) -> Result<MessageView, sqlx::Error> {
    let status = delivery(row.try_get(from + MESSAGE_COLUMNS)?);
    Ok(MessageView { message: message(row, from)?, reactions: Vec::new(), status })
}

fn message(row: &PgRow, from: usize) -> Result<Message, sqlx::Error> {
    Ok(Message {
        message_id: row.try_get(from)?,
        conversation_id: row.try_get(from + 1)?,
        seq: unsigned(row.try_get(from + 2)?),
        sender_id: row.try_get(from + 3)?,
        kind: row.try_get(from + 4)?,
        content: row.try_get(from + 5)?,
        file_ids: Vec::new(),
        reply_to: row.try_get(from + 6)?,
        mentions: row.try_get::<Option<Vec<Uuid>>, _>(from + 7)?.unwrap_or_default(),
        created_at: row.try_get(from + 8)?,
        edited_at: None,
        deleted: false,
    })
}

fn delivery(status: i32) -> Delivery {
    match status {
        2 => Delivery::Read,
        1 => Delivery::Delivered,
        _ => Delivery::Sent,
    }
}
