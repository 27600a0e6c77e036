//! `GET /v1/users?query=`

use axum::extract::State;
use axum::response::Response;
use platform::auth::Caller;
use platform::http::{Problem, Query};
use schemas::Topic;
use schemas::rest::{Page, User};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{user, user_columns};
use crate::freshness::{Freshness, FreshnessHeaders};
use crate::page::{Key, Paging, PagingParameters};
use crate::refusals::Refused;
use crate::state::QueryState;

/// No name is longer.
const MAX_QUERY_CHARS: usize = 100;

/// Those whose username begins so, then the others whose display name does: each part is one range of an index.
///
/// Parameters: what a name begins with and what it lies before, items; whether the first part is over; and where each
/// part goes on, by name and id.
const FIND: &str = concat!(
    "(SELECT ",
    user_columns!(),
    ", 0::smallint, username
        FROM read.users
       WHERE NOT $4 AND (username, user_id) > ($5, $6) AND username < $2
       ORDER BY username, user_id LIMIT $3)
     UNION ALL
     (SELECT ",
    user_columns!(),
    ", 1::smallint, display_name_folded
        FROM read.users
       WHERE (display_name_folded, user_id) > ($7, $8) AND display_name_folded < $2 AND NOT starts_with(username, $1)
       ORDER BY display_name_folded, user_id LIMIT $3)
     LIMIT $3"
);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Find {
    /// How the username or the display name begins, without regard to case; 1–100 characters.
    query: String,
}

/// Sorted by the part of the list, the name, the id.
#[derive(Serialize, Deserialize)]
pub(super) struct Last(i16, String, Uuid);

impl Key for Last {
    const LIST: &'static str = "users";
}

/// Users whose username or display name begins with the query.
#[utoipa::path(get, path = "/v1/users", tag = "users", operation_id = "findUsers", params(Find, PagingParameters, FreshnessHeaders),
    security(("bearer" = [])), responses((status = 200, body = Page<User>), Refused))]
pub(super) async fn find(
    State(state): State<QueryState>,
    _: Caller,
    Query(find): Query<Find>,
    Query(paging): Query<Paging<Last>>,
    fresh: Freshness,
) -> Result<Response, Problem> {
    let begin = folded(&find.query)?;
    let answer = fresh.of_all(Topic::Users);
    let first = (begin.clone(), Uuid::nil());
    let (over, usernames, display_names) = match paging.cursor.map(|cursor| cursor.0) {
        None => (false, first.clone(), first),
        Some(Last(0, name, id)) => (false, (name, id), first),
        Some(Last(_, name, id)) => (true, first, (name, id)),
    };
    let rows = sqlx::query(FIND)
        .bind(&begin)
        // Usernames and folded names are sorted by bytes: nothing that begins so lies beyond the last code point.
        .bind(format!("{begin}{}", char::MAX))
        .bind(paging.limit.fetched())
        .bind(over)
        .bind(usernames.0)
        .bind(usernames.1)
        .bind(display_names.0)
        .bind(display_names.1)
        .fetch_all(state.pool())
        .await?;
    let found = rows
        .iter()
        .map(|row| {
            let user = user(row)?;
            Ok((Last(row.try_get(5)?, row.try_get(6)?, user.user_id), user))
        })
        .collect::<Result<Vec<_>, sqlx::Error>>()?;
    answer.json(&paging.limit.page(found, |(last, _)| Last(last.0, last.1.clone(), last.2), |(_, user)| user))
}

/// What a folded name begins with.
fn folded(query: &str) -> Result<String, Problem> {
    if query.is_empty() || query.chars().count() > MAX_QUERY_CHARS || query.contains('\0') {
        return Err(Problem::invalid_parameter("query", "1 to 100 characters are needed"));
    }
    Ok(query.to_lowercase())
}
