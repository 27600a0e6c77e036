//! `DELETE /v1/sessions/{session_id}`

use axum::extract::State;
use axum::response::Response;
use domain::session::RevokeReason;
use platform::auth::Caller;
use platform::http::{PathId, Problem, RequestContext};

use super::logged_out;
use crate::commands::{LiveSession, RevokeSessions};
use crate::docs::CallerProblems;
use crate::execute::token;
use crate::service::Service;

/// Log out there
#[utoipa::path(
    delete, path = "/v1/sessions/{session_id}", tag = "sessions", security(("bearer" = [])),
    params(("session_id" = Uuid, Path, description = "One of one's own sessions")),
    responses(
        (status = 204, description = "The session has ended"),
        (status = 404, body = schemas::rest::Problem, content_type = "application/problem+json",
            description = "No session of yours"),
        CallerProblems,
    ),
)]
pub(crate) async fn log_out_there(
    State(service): State<Service>,
    caller: Caller,
    PathId(session_id): PathId,
    context: RequestContext,
) -> Result<Response, Problem> {
    let user_id = caller.user_id;
    // A session that lives on none of the caller's devices may be another user's: its tokens are not touched here.
    let live = service.live_sessions(user_id).await?.into_iter().find(|session| session.session_id == session_id);
    let reason = RevokeReason::LoggedOut;
    let ended = if let Some(session) = live {
        service.end_sessions(user_id, vec![session], reason, &context).await?
    } else {
        let sessions = vec![LiveSession { session_id, device_id: None }];
        token(service.execute(RevokeSessions { user_id, sessions, reason }, &context).await?.position)
    };
    Ok(logged_out(&ended))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use crate::testing::Api;

    #[tokio::test]
    async fn ends_another_session_of_ones_own() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        let elsewhere = api.log_in("ann").await;
        let there = format!("/v1/sessions/{}", elsewhere.session_id);
        api.delete(&there, &ann).await.is(204);
        api.patch("/v1/users/me", &elsewhere, json!({})).await.is(401);
        api.delete(&there, &ann).await.is(204);
        assert_eq!(api.events("session.revoked").await, 1);
    }

    #[tokio::test]
    async fn others_sessions_are_as_unknown_ones_and_go_on() {
        let api = Api::new().await;
        let (ann, ben) = (api.user("ann").await, api.user("ben").await);
        for there in [ben.session_id.to_string(), Uuid::now_v7().to_string(), "nonsense".into()] {
            api.delete(&format!("/v1/sessions/{there}"), &ann).await.is(404);
        }
        api.patch("/v1/users/me", &ben, json!({})).await.ok();
        api.refresh(&ben).await.ok();
    }
}
