//! `GET /v1/conversations/{conversation_id}`

use axum::extract::State;
use axum::response::Response;
use platform::auth::Caller;
use platform::http::{PathId, Problem};
use schemas::rest::Conversation;

use super::{LEFT_SEQ, conversation, conversation_columns, mine_columns};
use crate::access::Membership;
use crate::freshness::{Freshness, FreshnessHeaders};
use crate::refusals::{NotMember, Refused};
use crate::state::QueryState;

/// Parameters: the conversation, the caller.
const ONE: &str = concat!(
    "WITH mine AS MATERIALIZED (SELECT ",
    mine_columns!(),
    "   FROM read.members m
        JOIN read.conversations c USING (conversation_id)
        LEFT JOIN read.receipts r
          ON r.conversation_id = m.conversation_id AND r.user_id = m.user_id AND r.left_seq IS NULL
       WHERE m.conversation_id = $1 AND m.user_id = $2
       ORDER BY m.joined_seq DESC LIMIT 1)
     SELECT ",
    conversation_columns!()
);

/// A conversation of one's own.
#[utoipa::path(get, path = "/v1/conversations/{conversation_id}", tag = "conversations",
    operation_id = "getConversation", params(("conversation_id" = Uuid, Path), FreshnessHeaders),
    security(("bearer" = [])), responses((status = 200, body = Conversation), Refused, NotMember))]
pub(super) async fn one(
    State(state): State<QueryState>,
    caller: Caller,
    PathId(conversation_id): PathId,
    fresh: Freshness,
) -> Result<Response, Problem> {
    let answer = fresh.of_conversation(conversation_id);
    let row = sqlx::query(ONE).bind(conversation_id).bind(caller.user_id).fetch_optional(state.pool()).await?;
    Membership::of(row.as_ref(), LEFT_SEQ)?.admit()?;
    let row = row.ok_or_else(Problem::not_found)?;
    answer.json(&conversation(&row)?)
}
