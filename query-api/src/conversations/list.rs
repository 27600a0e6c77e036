//! `GET /v1/conversations`

use axum::extract::State;
use axum::response::Response;
use platform::auth::Caller;
use platform::cache::{Owner, Part};
use platform::http::{Problem, Query};
use schemas::Topic;
use schemas::rest::{Conversation, Page};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{conversation, conversation_columns, mine_columns};
use crate::first_page::FirstPage;
use crate::freshness::{Answer, Freshness, FreshnessHeaders, Scope};
use crate::page::{Key, Paging, PagingParameters, from_micros, micros};
use crate::refusals::Refused;
use crate::state::QueryState;

/// Parameters: the caller, items, then time and id of the last item of the page before.
const LIST: &str = concat!(
    "WITH mine AS MATERIALIZED (SELECT ",
    mine_columns!(),
    "   FROM read.members m
        JOIN read.conversations c USING (conversation_id)
        LEFT JOIN read.receipts r
          ON r.conversation_id = m.conversation_id AND r.user_id = m.user_id AND r.left_seq IS NULL
       WHERE m.user_id = $1 AND m.left_seq IS NULL
         AND ($3::timestamptz IS NULL OR (c.updated_at, c.conversation_id) < ($3, $4))
       ORDER BY c.updated_at DESC, c.conversation_id DESC LIMIT $2)
     SELECT ",
    conversation_columns!(),
    " ORDER BY mine.updated_at DESC, mine.conversation_id DESC"
);

/// Sorted by the last change, newest first, and id.
#[derive(Serialize, Deserialize)]
pub(super) struct Last(i64, Uuid);

impl Key for Last {
    const LIST: &'static str = "conversations";
}

/// One's own conversations, the one that changed last first.
#[utoipa::path(get, path = "/v1/conversations", tag = "conversations", operation_id = "listConversations",
    params(PagingParameters, FreshnessHeaders),
    security(("bearer" = [])), responses((status = 200, body = Page<Conversation>), Refused))]
pub(super) async fn list(
    State(state): State<QueryState>,
    caller: Caller,
    Query(paging): Query<Paging<Last>>,
    fresh: Freshness,
) -> Result<Response, Problem> {
    let name = format!("conversations:{}", paging.limit.fetched());
    let scope = Scope::default().with_all(Topic::Conversations);
    let first = FirstPage::of(&state, Owner::User(caller.user_id), name, scope).filter(|_| paging.cursor.is_none());
    if let Some(first) = &first
        && let Some(kept) = first.find(&fresh).await
    {
        return Ok(Answer::again(Topic::Conversations, kept));
    }
    let answer = fresh.of_all(Topic::Conversations);
    let last = paging.cursor.map(|cursor| cursor.0);
    let rows = sqlx::query(LIST)
        .bind(caller.user_id)
        .bind(paging.limit.fetched())
        .bind(last.as_ref().map(|last| from_micros(last.0)))
        .bind(last.as_ref().map(|last| last.1))
        .fetch_all(state.pool())
        .await?;
    let conversations = rows.iter().map(conversation).collect::<Result<Vec<_>, _>>()?;
    let page = paging.limit.page(conversations, |last| Last(micros(last.updated_at), last.conversation_id), |one| one);
    // Where there are more, one of those might come first next.
    let Some(first) = first.filter(|_| page.next_cursor.is_none()) else { return answer.json(&page) };
    let (response, body) = answer.json_to_keep(&page)?;
    let parts = std::iter::once(Part::Memberships(caller.user_id))
        .chain(page.items.iter().map(|one| Part::Conversation(one.conversation_id)));
    first.keep(body, parts.collect()).await;
    Ok(response)
}
