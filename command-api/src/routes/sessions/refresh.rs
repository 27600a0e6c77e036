//! `POST /v1/sessions/refresh`

use axum::extract::State;
use domain::session::RevokeReason;
use platform::http::{Json, Problem, RequestContext};
use schemas::rest::{Refresh, SessionTokens};
use time::Duration;

use crate::address::Whence;
use crate::answer::Answer;
use crate::commands::{LiveSession, RefreshRefusal, RefreshSession};
use crate::docs::BodyProblems;
use crate::execute::token;
use crate::refresh_token::{RefreshToken, hash};
use crate::service::Service;

/// Exchange a refresh token for new tokens; one that was used up ends its session
#[utoipa::path(
    post, path = "/v1/sessions/refresh", tag = "sessions", request_body = Refresh,
    responses(
        (status = 200, body = SessionTokens),
        (status = 401, body = schemas::rest::Problem, content_type = "application/problem+json",
            description = "Not a refresh token that is good now"),
        (status = 503, body = schemas::rest::Problem, content_type = "application/problem+json",
            description = "A dependency is away, or load is shed"),
        BodyProblems,
    ),
)]
pub(crate) async fn refresh(
    State(service): State<Service>,
    Whence(client): Whence,
    context: RequestContext,
    Json(body): Json<Refresh>,
) -> Result<Answer<SessionTokens>, Problem> {
    let refused = || Problem::unauthorized_because("this refresh token is not good, or no longer");
    let keyring = service.authenticator().keyring();
    let presented = RefreshToken::parse(&body.refresh_token, keyring).ok_or_else(refused)?;
    let session = LiveSession { session_id: presented.session_id, device_id: None };
    if service.authenticator().revocations().was_revoked(presented.session_id).await? {
        // Whoever refused its access tokens may not have come to the log.
        let ended = service.end_sessions(presented.user_id, vec![session], RevokeReason::LoggedOut, &context).await;
        return Err(ended.err().unwrap_or_else(refused));
    }
    let settings = service.inner.parts.settings;
    let successor = presented.successor();
    let mut command = RefreshSession {
        presented,
        presented_hash: hash(&body.refresh_token),
        successor_hash: hash(&successor.text(keyring)),
        device_id: body.device_id,
        refresh_ttl: Duration::try_from(settings.refresh_ttl).unwrap_or(Duration::DAY),
        grace: Duration::try_from(settings.refresh_grace).unwrap_or(Duration::ZERO),
        client,
        reused_on: None,
    };
    let mut decided = service.attempt(command.clone(), &context).await?;
    if let Err(RefreshRefusal::Reused { device_id }) = decided {
        tracing::warn!(session_id = %presented.session_id, "a used refresh token came again: session {} ends", presented.session_id);
        service.refuse_tokens(&[session]).await?;
        command.reused_on = Some(device_id);
        decided = service.attempt(command, &context).await?;
    }
    let executed = decided.map_err(|_| refused())?;
    let expires_at = executed.output.ok_or_else(refused)?;
    let tokens = service.tokens(successor, body.device_id, expires_at);
    Ok(Answer::ok(token(executed.position), tokens))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use testkit::eventually;
    use uuid::Uuid;

    use crate::service::Settings;
    use crate::testing::{Account, Answered, Api};

    async fn exchange(api: &Api, token: &str, device: Uuid) -> Answered {
        api.post("/v1/sessions/refresh", None, json!({"refresh_token": token, "device_id": device})).await
    }

    #[tokio::test]
    async fn each_token_is_followed_by_another() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        let mut token = ann.refresh_token.clone();
        for _ in 0..3 {
            let next = exchange(&api, &token, ann.device_id).await.ok();
            assert_eq!(next["session_id"], json!(ann.session_id));
            assert_ne!(next["refresh_token"], json!(token));
            let now = Account { token: next["access_token"].as_str().unwrap().into(), ..ann.clone() };
            api.patch("/v1/users/me", &now, json!({})).await.ok();
            token = next["refresh_token"].as_str().unwrap().into();
        }
        assert_eq!(api.events("session.refreshed").await, 3);
    }

    #[tokio::test]
    async fn a_replay_within_the_grace_gets_the_same_successor() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        let replay = || exchange(&api, &ann.refresh_token, ann.device_id);
        let (one, other) = tokio::join!(replay(), replay());
        let (one, other) = (one.ok(), other.ok());
        assert_eq!(one["refresh_token"], other["refresh_token"]);
        assert_eq!(one["refresh_expires_at"], other["refresh_expires_at"]);
        assert_eq!(api.events("session.refreshed").await, 1);
    }

    #[tokio::test]
    async fn a_reuse_ends_the_session() {
        let settings = Settings { refresh_grace: Duration::ZERO, ..Settings::default() };
        let api = Api::with(settings).await;
        let ann = api.user("ann").await;
        let next = exchange(&api, &ann.refresh_token, ann.device_id).await.ok();
        let next = Account {
            token: next["access_token"].as_str().unwrap().into(),
            refresh_token: next["refresh_token"].as_str().unwrap().into(),
            ..ann.clone()
        };
        // Within the same millisecond it is not late yet.
        let reuse = async || exchange(&api, &ann.refresh_token, ann.device_id).await.status == 401;
        eventually("it is late", Duration::from_secs(5), reuse).await;
        api.patch("/v1/users/me", &next, json!({})).await.is(401);
        api.refresh(&next).await.is(401);
        assert_eq!(api.events("session.reuse_detected").await, 1);
        assert_eq!(api.events("session.revoked").await, 1);
        let log = api.log().await;
        let one = |kind: &str| log.iter().find(|event| event.event_type == kind).unwrap();
        let (reuse, revoked) = (one("session.reuse_detected"), one("session.revoked"));
        let (cause, effect) = (reuse.metadata.as_ref().unwrap(), revoked.metadata.as_ref().unwrap());
        assert_eq!((cause.causation_id, effect.causation_id), (None, Some(reuse.event_id)));
        assert!(cause.correlation_id.is_some() && cause.correlation_id == effect.correlation_id);
        // The device is free.
        api.log_in_on("ann", ann.device_id).await;
    }

    #[tokio::test]
    async fn another_device_is_refused() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        exchange(&api, &ann.refresh_token, Uuid::now_v7()).await.is(401);
        exchange(&api, &ann.refresh_token, ann.device_id).await.ok();
        // A used one from elsewhere is a theft, grace or not.
        exchange(&api, &ann.refresh_token, Uuid::now_v7()).await.is(401);
        api.patch("/v1/users/me", &ann, json!({})).await.is(401);
    }

    #[tokio::test]
    async fn what_is_no_token_is_refused() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        for token in ["", "x", &ann.token, &"A".repeat(91), "\0"] {
            exchange(&api, token, ann.device_id).await.is(401);
        }
        let body = json!({"refresh_token": ann.refresh_token});
        assert_eq!(api.post("/v1/sessions/refresh", None, body).await.is(422).pointers(), ["/device_id"]);
    }

    #[tokio::test]
    async fn an_expired_one_is_refused() {
        let settings = Settings { refresh_ttl: Duration::ZERO, ..Settings::default() };
        let api = Api::with(settings).await;
        let ann = api.user("ann").await;
        api.refresh(&ann).await.is(401);
        assert_eq!(api.events("session.revoked").await, 0);
    }
}
