//! `GET /v1/conversations/{conversation_id}/messages/{message_id}`

use axum::extract::State;
use axum::response::Response;
use platform::auth::Caller;
use platform::http::{Path, PathId, Problem};
use schemas::rest::MessageView;

use super::{message_columns, status_column, view};
use crate::access::{access_cte, admitted};
use crate::freshness::{Freshness, FreshnessHeaders};
use crate::refusals::{NotMember, Refused};
use crate::state::QueryState;

/// Parameters: the conversation, the caller, the message.
const ONE: &str = concat!(
    "WITH ",
    access_cte!(),
    " SELECT access.left_seq, ",
    message_columns!(),
    ", ",
    status_column!(),
    " FROM access
      LEFT JOIN read.timeline t
        ON t.message_id = $3 AND t.conversation_id = $1 AND t.seq > access.horizon AND access.left_seq IS NULL"
);

/// A message as it stands now.
#[utoipa::path(get, path = "/v1/conversations/{conversation_id}/messages/{message_id}", tag = "messages",
    operation_id = "getMessage",
    params(("conversation_id" = Uuid, Path), ("message_id" = Uuid, Path), FreshnessHeaders),
    security(("bearer" = [])), responses((status = 200, body = MessageView), Refused, NotMember))]
pub(super) async fn one(
    State(state): State<QueryState>,
    caller: Caller,
    ids: Path<(PathId, PathId)>,
    fresh: Freshness,
) -> Result<Response, Problem> {
    let Path((PathId(conversation_id), PathId(message_id))) = ids;
    let answer = fresh.of_conversation(conversation_id);
    let rows =
        sqlx::query(ONE).bind(conversation_id).bind(caller.user_id).bind(message_id).fetch_all(state.pool()).await?;
    let mut found = admitted(&rows, |row| view(row, 1))?;
    answer.json(&found.pop().ok_or_else(Problem::not_found)?)
}
