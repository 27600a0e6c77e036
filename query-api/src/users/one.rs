//! `GET /v1/users/{user_id}`

use axum::extract::State;
use axum::response::Response;
use platform::auth::Caller;
use platform::http::{PathId, Problem};
use schemas::rest::User;

use super::{user, user_columns};
use crate::freshness::{Freshness, FreshnessHeaders};
use crate::refusals::{NotThere, Refused};
use crate::state::QueryState;

const ONE: &str = concat!("SELECT ", user_columns!(), " FROM read.users WHERE user_id = $1");

/// A user, as others see them.
#[utoipa::path(get, path = "/v1/users/{user_id}", tag = "users", operation_id = "getUser",
    params(("user_id" = Uuid, Path), FreshnessHeaders),
    security(("bearer" = [])), responses((status = 200, body = User), Refused, NotThere))]
pub(super) async fn one(
    State(state): State<QueryState>,
    _: Caller,
    PathId(user_id): PathId,
    fresh: Freshness,
) -> Result<Response, Problem> {
    let answer = fresh.of_user(user_id);
    let row = sqlx::query(ONE).bind(user_id).fetch_optional(state.pool()).await?;
    answer.json(&user(&row.ok_or_else(Problem::not_found)?)?)
}
