//! `GET /v1/conversations/{conversation_id}/members`

use axum::extract::State;
use axum::response::Response;
use platform::auth::Caller;
use platform::cache::{Owner, Part};
use platform::http::{PathId, Problem, Query};
use schemas::rest::{Member, Page};
use schemas::{Role, Topic};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use uuid::Uuid;

use crate::access::{access_cte, admitted};
use crate::first_page::FirstPage;
use crate::freshness::{Answer, Freshness, FreshnessHeaders, Scope};
use crate::page::{Key, Paging, PagingParameters};
use crate::refusals::{NotMember, Refused};
use crate::rows::named;
use crate::state::QueryState;

/// Parameters: the conversation, the caller, items, the last member of the page before.
///
/// The access stands on every row, and on one without a member where the page has none.
const MEMBERS: &str = concat!(
    "WITH ",
    access_cte!(),
    " SELECT access.left_seq, page.*
        FROM access
        LEFT JOIN LATERAL (
             SELECT m.user_id, u.username, u.display_name, m.role, m.joined_at
               FROM read.members m
               LEFT JOIN read.users u ON u.user_id = m.user_id
              WHERE m.conversation_id = $1 AND m.left_seq IS NULL AND m.user_id > $4 AND access.left_seq IS NULL
              ORDER BY m.user_id LIMIT $3) page ON true"
);

/// Sorted by user.
#[derive(Serialize, Deserialize)]
pub(super) struct Last(Uuid);

impl Key for Last {
    const LIST: &'static str = "members";
}

/// Who is in a conversation.
#[utoipa::path(get, path = "/v1/conversations/{conversation_id}/members", tag = "conversations",
    operation_id = "listMembers", params(("conversation_id" = Uuid, Path), PagingParameters, FreshnessHeaders),
    security(("bearer" = [])), responses((status = 200, body = Page<Member>), Refused, NotMember))]
pub(super) async fn members(
    State(state): State<QueryState>,
    caller: Caller,
    PathId(conversation_id): PathId,
    Query(paging): Query<Paging<Last>>,
    fresh: Freshness,
) -> Result<Response, Problem> {
    let scope = Scope::default().with(Topic::Conversations, state.shard_of(conversation_id)).with_all(Topic::Users);
    let name = format!("members:{}", paging.limit.fetched());
    let owner = Owner::Conversation(conversation_id);
    let first = FirstPage::of(&state, owner, name, scope).filter(|_| paging.cursor.is_none());
    // It shows all members, so that whoever is not among them is not admitted by it: the database knows what they are.
    if let Some(first) = &first
        && let Some(kept) = first.find(&fresh).await
        && kept.parts.contains(&Part::Profile(caller.user_id))
    {
        return Ok(Answer::again(Topic::Conversations, kept));
    }
    let answer = fresh.of_conversation(conversation_id);
    let rows = sqlx::query(MEMBERS)
        .bind(conversation_id)
        .bind(caller.user_id)
        .bind(paging.limit.fetched())
        .bind(paging.cursor.map_or(Uuid::nil(), |cursor| cursor.0.0))
        .fetch_all(state.pool())
        .await?;
    let members = admitted(&rows, |row| {
        Ok(Member {
            user_id: row.try_get(1)?,
            username: row.try_get(2)?,
            display_name: row.try_get(3)?,
            role: named(row, 4, Role::from_text)?,
            joined_at: row.try_get(5)?,
        })
    })?;
    let page = paging.limit.page(members, |last| Last(last.user_id), |member| member);
    let Some(first) = first.filter(|_| page.next_cursor.is_none()) else { return answer.json(&page) };
    let (response, body) = answer.json_to_keep(&page)?;
    let parts = std::iter::once(Part::Members(conversation_id))
        .chain(page.items.iter().map(|member| Part::Profile(member.user_id)));
    first.keep(body, parts.collect()).await;
    Ok(response)
}
