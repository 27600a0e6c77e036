//! `GET /v1/sessions`

use axum::extract::State;
use axum::response::Response;
use platform::auth::Caller;
use platform::cache::{Owner, Part};
use platform::http::{Problem, Query};
use schemas::Topic;
use schemas::rest::{Page, Session};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::first_page::FirstPage;
use crate::freshness::{Answer, Freshness, FreshnessHeaders, Scope};
use crate::page::{Key, Paging, PagingParameters, from_micros, micros};
use crate::refusals::Refused;
use crate::state::QueryState;

/// Parameters: the user, items, then start and id of the last item of the page before.
const LIST: &str = "
    SELECT session_id, device_id, device_name, created_at, last_seen_at
      FROM read.sessions
     WHERE user_id = $1 AND ($3::timestamptz IS NULL OR (created_at, session_id) < ($3, $4))
     ORDER BY created_at DESC, session_id DESC LIMIT $2";

/// Sorted by start, newest first, and id.
#[derive(Serialize, Deserialize)]
pub(super) struct Last(i64, Uuid);

impl Key for Last {
    const LIST: &'static str = "sessions";
}

/// One's own sessions, the newest first.
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions", operation_id = "listSessions",
    params(PagingParameters, FreshnessHeaders),
    security(("bearer" = [])), responses((status = 200, body = Page<Session>), Refused))]
pub(super) async fn list(
    State(state): State<QueryState>,
    caller: Caller,
    Query(paging): Query<Paging<Last>>,
    fresh: Freshness,
) -> Result<Response, Problem> {
    // Each session has its own: it says which one is current.
    let name = format!("sessions:{}:{}", caller.session_id, paging.limit.fetched());
    let scope = Scope::default().with(Topic::Users, state.shard_of(caller.user_id));
    let first = FirstPage::of(&state, Owner::User(caller.user_id), name, scope).filter(|_| paging.cursor.is_none());
    if let Some(first) = &first
        && let Some(kept) = first.find(&fresh).await
    {
        return Ok(Answer::again(Topic::Users, kept));
    }
    let answer = fresh.of_user(caller.user_id);
    let last = paging.cursor.map(|cursor| cursor.0);
    let rows = sqlx::query(LIST)
        .bind(caller.user_id)
        .bind(paging.limit.fetched())
        .bind(last.as_ref().map(|last| from_micros(last.0)))
        .bind(last.as_ref().map(|last| last.1))
        .fetch_all(state.pool())
        .await?;
    let sessions = rows
        .iter()
        .map(|row| {
            let session_id: Uuid = row.try_get(0)?;
            Ok(Session {
                session_id,
                device_id: row.try_get(1)?,
                device_name: row.try_get(2)?,
                created_at: row.try_get::<OffsetDateTime, _>(3)?,
                last_seen_at: row.try_get(4)?,
                current: session_id == caller.session_id,
            })
        })
        .collect::<Result<Vec<_>, sqlx::Error>>()?;
    let page = paging.limit.page(sessions, |last| Last(micros(last.created_at), last.session_id), |session| session);
    let Some(first) = first else { return answer.json(&page) };
    let (response, body) = answer.json_to_keep(&page)?;
    first.keep(body, vec![Part::Sessions(caller.user_id)]).await;
    Ok(response)
}
