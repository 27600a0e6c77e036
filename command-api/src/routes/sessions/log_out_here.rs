//! `DELETE /v1/sessions/current`

use axum::extract::State;
use axum::response::Response;
use domain::session::RevokeReason;
use platform::auth::Caller;
use platform::http::{Problem, RequestContext};

use super::logged_out;
use crate::commands::LiveSession;
use crate::docs::CallerProblems;
use crate::service::Service;

/// Log out here
#[utoipa::path(
    delete, path = "/v1/sessions/current", tag = "sessions", security(("bearer" = [])),
    responses((status = 204, description = "The session has ended"), CallerProblems),
)]
pub(crate) async fn log_out_here(
    State(service): State<Service>,
    caller: Caller,
    context: RequestContext,
) -> Result<Response, Problem> {
    let session = LiveSession { session_id: caller.session_id, device_id: Some(caller.device_id) };
    let ended = service.end_sessions(caller.user_id, vec![session], RevokeReason::LoggedOut, &context).await?;
    Ok(logged_out(&ended))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Api;

    #[tokio::test]
    async fn ends_this_session_alone() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        let elsewhere = api.log_in("ann").await;
        let ended = api.delete("/v1/sessions/current", &ann).await.is(204);
        assert!(ended.header("position").is_some());
        api.patch("/v1/users/me", &ann, json!({})).await.is(401);
        api.delete("/v1/sessions/current", &ann).await.is(401);
        api.refresh(&ann).await.is(401);
        api.patch("/v1/users/me", &elsewhere, json!({})).await.ok();
        assert_eq!(api.events("session.revoked").await, 1);
    }
}
