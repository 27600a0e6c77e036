//! `GET /v1/users/me/push-subscriptions`

use axum::extract::State;
use platform::auth::Caller;
use platform::http::{Json, Problem};
use schemas::rest::{Page, PushSubscription};
use time::OffsetDateTime;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::refusals::Refused;
use crate::state::QueryState;

pub(crate) fn router() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Parameters: the user. There are no more than a page holds.
const LIST: &str = "
    SELECT subscription_id, service, created_at, expires_at, session_id
      FROM state.push_subscriptions WHERE user_id = $1 AND expires_at > now() ORDER BY created_at, subscription_id";

type Row = (Uuid, String, OffsetDateTime, OffsetDateTime, Uuid);

/// One's own push subscriptions, all of them, without what others could push by.
#[utoipa::path(get, path = "/v1/users/me/push-subscriptions", tag = "users", operation_id = "listPushSubscriptions",
    security(("bearer" = [])), responses((status = 200, body = Page<PushSubscription>), Refused))]
async fn list(State(state): State<QueryState>, caller: Caller) -> Result<Json<Page<PushSubscription>>, Problem> {
    let rows: Vec<Row> = sqlx::query_as(LIST).bind(caller.user_id).fetch_all(state.primary()).await?;
    let items = rows.into_iter().map(|(subscription_id, service, created_at, expires_at, session_id)| {
        PushSubscription { subscription_id, service, created_at, expires_at, current: session_id == caller.session_id }
    });
    Ok(Json(Page { items: items.collect(), next_cursor: None }))
}
