//! `DELETE /v1/users/me/push-subscriptions/{subscription_id}`

use axum::extract::State;
use platform::auth::Caller;
use platform::http::{Json, PathId, Problem};
use schemas::rest::PushSubscription;

use super::{Row, shown};
use crate::docs::CallerProblems;
use crate::service::Service;

/// Have a browser of yours told no more
#[utoipa::path(
    delete, path = "/v1/users/me/push-subscriptions/{subscription_id}", tag = "users", security(("bearer" = [])),
    params(("subscription_id" = Uuid, Path, description = "One of one's own subscriptions")),
    responses(
        (status = 200, body = PushSubscription, description = "What it was"),
        (status = 404, body = schemas::rest::Problem, content_type = "application/problem+json",
            description = "No subscription of yours"),
        CallerProblems,
    ),
)]
pub(crate) async fn unsubscribe(
    State(service): State<Service>,
    caller: Caller,
    PathId(subscription_id): PathId,
) -> Result<Json<PushSubscription>, Problem> {
    let gone: Option<Row> = sqlx::query_as(
        "DELETE FROM state.push_subscriptions WHERE user_id = $1 AND subscription_id = $2
         RETURNING subscription_id, service, created_at, expires_at, session_id",
    )
    .bind(caller.user_id)
    .bind(subscription_id)
    .fetch_optional(&service.inner.parts.pool)
    .await?;
    Ok(Json(shown(gone.ok_or_else(Problem::not_found)?, caller.session_id)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use crate::testing::Api;

    #[tokio::test]
    async fn ones_own_goes_and_others_are_as_unknown_ones() {
        let api = Api::new().await;
        let (ann, ben) = (api.user("ann").await, api.user("ben").await);
        let path = format!("/v1/users/me/push-subscriptions/{}", Uuid::now_v7());
        let keys = json!({
            "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            "auth": "BTBZMqHH6r4Tts7J_aSIgg",
        });
        api.put(&path, &ann, json!({"endpoint": "https://push.example.net/1", "keys": keys})).await.ok();
        api.delete(&path, &ben).await.is(404);
        assert_eq!(api.delete(&path, &ann).await.ok()["service"], "https://push.example.net");
        api.delete(&path, &ann).await.is(404);
        api.delete("/v1/users/me/push-subscriptions/nonsense", &ann).await.is(404);
    }
}
