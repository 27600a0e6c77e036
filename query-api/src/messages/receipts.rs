//! `GET /v1/conversations/{conversation_id}/messages/{message_id}/receipts`

use axum::extract::State;
use axum::response::Response;
use platform::auth::Caller;
use platform::http::{Path, PathId, Problem, Query};
use schemas::rest::{MemberState, Page};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use uuid::Uuid;

use crate::access::{access_cte, admitted};
use crate::freshness::{Freshness, FreshnessHeaders};
use crate::page::{Key, Paging, PagingParameters};
use crate::refusals::{NotMember, Refused};
use crate::state::QueryState;
use crate::status::Reach;

/// Parameters: the conversation, the caller, the message, items, the last member of the page before.
///
/// Those whom the message's status waits for: who was a member when it was sent, and still is, without the sender.
/// Rows: the access, the message's `seq`, a member.
const RECEIPTS: &str = concat!(
    "WITH ",
    access_cte!(),
    " SELECT access.left_seq, t.seq, page.*
        FROM access
        LEFT JOIN read.timeline t
          ON t.message_id = $3 AND t.conversation_id = $1 AND t.seq > access.horizon AND access.left_seq IS NULL
        LEFT JOIN LATERAL (
             SELECT m.user_id, m.joined_seq, coalesce(r.delivered_to, m.joined_seq), coalesce(r.read_to, m.joined_seq),
                    r.delivered_at, r.read_at
               FROM read.members m
               LEFT JOIN read.receipts r
                 ON r.conversation_id = $1 AND r.user_id = m.user_id AND r.left_seq IS NULL
              WHERE m.conversation_id = $1 AND m.left_seq IS NULL AND m.user_id > $5
                AND m.joined_seq <= t.seq AND m.user_id <> t.sender_id
              ORDER BY m.user_id LIMIT $4) page ON true"
);

/// Sorted by user.
#[derive(Serialize, Deserialize)]
pub(super) struct Last(Uuid);

impl Key for Last {
    const LIST: &'static str = "message receipts";
}

/// How far a message has got with each who was a member when it was sent, and still is.
#[utoipa::path(get, path = "/v1/conversations/{conversation_id}/messages/{message_id}/receipts", tag = "messages",
    operation_id = "listMessageReceipts",
    params(("conversation_id" = Uuid, Path), ("message_id" = Uuid, Path), PagingParameters, FreshnessHeaders),
    security(("bearer" = [])), responses((status = 200, body = Page<MemberState>), Refused, NotMember))]
pub(super) async fn receipts(
    State(state): State<QueryState>,
    caller: Caller,
    ids: Path<(PathId, PathId)>,
    Query(paging): Query<Paging<Last>>,
    fresh: Freshness,
) -> Result<Response, Problem> {
    let Path((PathId(conversation_id), PathId(message_id))) = ids;
    let answer = fresh.of_conversation(conversation_id);
    let rows = sqlx::query(RECEIPTS)
        .bind(conversation_id)
        .bind(caller.user_id)
        .bind(message_id)
        .bind(paging.limit.fetched())
        .bind(paging.cursor.map_or(Uuid::nil(), |cursor| cursor.0.0))
        .fetch_all(state.pool())
        .await?;
    let found = admitted(&rows, |row| {
        let seq: i64 = row.try_get(1)?;
        let Some(user_id) = row.try_get::<Option<Uuid>, _>(2)? else { return Ok(None) };
        let reach = Reach { joined: row.try_get(3)?, delivered: row.try_get(4)?, read: row.try_get(5)? };
        Ok(Some(MemberState {
            user_id,
            state: reach.of(seq),
            delivered_at: if reach.delivered >= seq { row.try_get(6)? } else { None },
            read_at: if reach.read >= seq { row.try_get(7)? } else { None },
        }))
    })?;
    if found.is_empty() {
        return Err(Problem::not_found());
    }
    let states = found.into_iter().flatten().collect();
    answer.json(&paging.limit.page(states, |last: &MemberState| Last(last.user_id), |state| state))
}
