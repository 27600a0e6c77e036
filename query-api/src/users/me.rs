//! `GET /v1/users/me`

use axum::extract::State;
use axum::response::Response;
use platform::auth::Caller;
use platform::http::Problem;
use schemas::UserRole;
use schemas::rest::User;
use sqlx::Row;

use super::{user, user_columns};
use crate::freshness::{Freshness, FreshnessHeaders};
use crate::refusals::Refused;
use crate::state::QueryState;

const ME: &str = concat!("SELECT ", user_columns!(), ", email, is_operator FROM read.users WHERE user_id = $1");

/// Oneself, with the e-mail address and roles.
#[utoipa::path(get, path = "/v1/users/me", tag = "users", operation_id = "getMe", params(FreshnessHeaders),
    security(("bearer" = [])), responses((status = 200, body = User), Refused))]
pub(super) async fn me(State(state): State<QueryState>, caller: Caller, fresh: Freshness) -> Result<Response, Problem> {
    let answer = fresh.of_user(caller.user_id);
    let row = sqlx::query(ME).bind(caller.user_id).fetch_optional(state.pool()).await?;
    // Whoever has a session is registered: the read model has yet to learn of it.
    let row = row.ok_or_else(|| Problem::unavailable("the user is not in the read model yet"))?;
    let roles = if row.try_get(6)? { vec![UserRole::Operator] } else { vec![] };
    answer.json(&User { email: row.try_get(5)?, roles: Some(roles), ..user(&row)? })
}
