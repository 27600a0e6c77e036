//! `DELETE /v1/sessions`

use axum::extract::State;
use axum::response::Response;
use domain::session::RevokeReason;
use platform::auth::Caller;
use platform::http::{Problem, RequestContext};

use super::logged_out;
use crate::commands::LiveSession;
use crate::docs::CallerProblems;
use crate::service::Service;

/// Log out everywhere
#[utoipa::path(
    delete, path = "/v1/sessions", tag = "sessions", security(("bearer" = [])),
    responses((status = 204, description = "All sessions have ended"), CallerProblems),
)]
pub(crate) async fn log_out_everywhere(
    State(service): State<Service>,
    caller: Caller,
    context: RequestContext,
) -> Result<Response, Problem> {
    let Caller { user_id, session_id, device_id, .. } = caller;
    let mut live = vec![LiveSession { session_id, device_id: Some(device_id) }];
    loop {
        let ended = service.end_sessions(user_id, live, RevokeReason::LoggedOut, &context).await?;
        live = service.live_sessions(user_id).await?;
        if live.is_empty() {
            return Ok(logged_out(&ended));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Api;

    #[tokio::test]
    async fn ends_all_of_ones_own_sessions() {
        let api = Api::new().await;
        let (ann, ben) = (api.user("ann").await, api.user("ben").await);
        let elsewhere = api.log_in("ann").await;
        api.delete("/v1/sessions", &ann).await.is(204);
        for account in [&ann, &elsewhere] {
            api.patch("/v1/users/me", account, json!({})).await.is(401);
            api.refresh(account).await.is(401);
        }
        api.patch("/v1/users/me", &ben, json!({})).await.ok();
        assert_eq!(api.events("session.revoked").await, 2);
        api.log_in("ann").await;
    }
}
