//! `GET /v1/conversations/{conversation_id}/receipts`

use axum::extract::State;
use axum::response::Response;
use platform::auth::Caller;
use platform::http::{PathId, Problem, Query};
use schemas::rest::{MemberReceipt, Page};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use uuid::Uuid;

use crate::access::{access_cte, admitted};
use crate::freshness::{Freshness, FreshnessHeaders};
use crate::page::{Key, Paging, PagingParameters, unsigned};
use crate::refusals::{NotMember, Refused};
use crate::state::QueryState;

/// Parameters: the conversation, the caller, items, the last member of the page before.
const RECEIPTS: &str = concat!(
    "WITH ",
    access_cte!(),
    " SELECT access.left_seq, page.*
        FROM access
        LEFT JOIN LATERAL (
             SELECT m.user_id, coalesce(r.delivered_to, m.joined_seq), coalesce(r.read_to, m.joined_seq)
               FROM read.members m
               LEFT JOIN read.receipts r
                 ON r.conversation_id = $1 AND r.user_id = m.user_id AND r.left_seq IS NULL
              WHERE m.conversation_id = $1 AND m.left_seq IS NULL AND m.user_id > $4 AND access.left_seq IS NULL
              ORDER BY m.user_id LIMIT $3) page ON true"
);

/// Sorted by user.
#[derive(Serialize, Deserialize)]
pub(super) struct Last(Uuid);

impl Key for Last {
    const LIST: &'static str = "receipts";
}

/// How far each member of a conversation has got.
#[utoipa::path(get, path = "/v1/conversations/{conversation_id}/receipts", tag = "conversations",
    operation_id = "listReceipts", params(("conversation_id" = Uuid, Path), PagingParameters, FreshnessHeaders),
    security(("bearer" = [])), responses((status = 200, body = Page<MemberReceipt>), Refused, NotMember))]
pub(super) async fn receipts(
    State(state): State<QueryState>,
    caller: Caller,
    PathId(conversation_id): PathId,
    Query(paging): Query<Paging<Last>>,
    fresh: Freshness,
) -> Result<Response, Problem> {
    let answer = fresh.of_conversation(conversation_id);
    let rows = sqlx::query(RECEIPTS)
        .bind(conversation_id)
        .bind(caller.user_id)
        .bind(paging.limit.fetched())
        .bind(paging.cursor.map_or(Uuid::nil(), |cursor| cursor.0.0))
        .fetch_all(state.pool())
        .await?;
    let receipts = admitted(&rows, |row| {
        Ok(MemberReceipt {
            user_id: row.try_get(1)?,
            delivered_to: unsigned(row.try_get(2)?),
            read_to: unsigned(row.try_get(3)?),
        })
    })?;
    answer.json(&paging.limit.page(receipts, |last| Last(last.user_id), |receipt| receipt))
}
