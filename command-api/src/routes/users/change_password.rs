//! `PUT /v1/users/me/password`

use axum::extract::State;
use domain::session::RevokeReason;
use domain::user::User;
use platform::auth::Caller;
use platform::http::{Json, Problem, RequestContext};
use platform::limits::Bucket;
use schemas::rest::{ChangePassword, Done};

use crate::address::ClientAddress;
use crate::answer::Answer;
use crate::commands::{self, LiveSession};
use crate::docs::{BodyProblems, CallerProblems};
use crate::execute::token;
use crate::service::Service;
use crate::validate::Checks;

/// Change one's password; all other sessions end
#[utoipa::path(
    put, path = "/v1/users/me/password", tag = "users", request_body = ChangePassword, security(("bearer" = [])),
    responses(
        (status = 200, body = Done),
        (status = 403, body = schemas::rest::Problem, content_type = "application/problem+json",
            description = "Not the current password"),
        (status = 429, body = schemas::rest::Problem, content_type = "application/problem+json",
            description = "Too many attempts"),
        CallerProblems, BodyProblems,
    ),
)]
pub(crate) async fn change_password(
    State(service): State<Service>,
    caller: Caller,
    address: ClientAddress,
    context: RequestContext,
    Json(body): Json<ChangePassword>,
) -> Result<Answer<Done>, Problem> {
    let mut checks = Checks::default();
    checks.password("/new_password", &body.new_password);
    checks.done()?;
    let user_id = caller.user_id;
    // A stolen access token is no better place to guess passwords than the log-in.
    let who = [user_id.as_bytes(), &address.network()[..]].concat();
    let allowed = service.inner.parts.limiter.check(Bucket::Logins, &who).await;
    allowed.map_err(|retry| Problem::rate_limited(retry.seconds()))?;

    let hash = service.password_hash(user_id).await?;
    if !service.inner.passwords.verify(body.current_password, hash.as_deref()).await? {
        return Err(Problem::forbidden("this is not the current password"));
    }
    let password_hash = service.inner.passwords.hash(body.new_password).await?;
    let others = service.other_sessions(&caller).await?;
    service.refuse_tokens(&others).await?;
    let checked_against = hash.unwrap_or_default();
    let command = commands::ChangePassword { user_id, checked_against, password_hash, others };
    let executed = service.execute(command, &context).await?;
    let context = context.because_of(executed.output);

    // Those that began by the old password while this was under way; by now none can.
    loop {
        let late = service.other_sessions(&caller).await?;
        if late.is_empty() {
            break;
        }
        service.end_sessions(user_id, late, RevokeReason::PasswordChanged, &context).await?;
    }
    let position = token(executed.position);
    Ok(Answer::ok(position.clone(), Done { position }))
}

impl Service {
    /// The hash of a user's password, if there is such a user.
    pub(crate) async fn password_hash(&self, user_id: uuid::Uuid) -> Result<Option<String>, Problem> {
        let loaded = self.store().log().load::<User>(user_id).await.map_err(|error| {
            tracing::warn!(%error, "an account cannot be read: {error}");
            Problem::unavailable("the log is not available")
        })?;
        Ok(loaded.and_then(|(user, _)| user.account().map(|account| account.password_hash.clone())))
    }

    async fn other_sessions(&self, caller: &Caller) -> Result<Vec<LiveSession>, Problem> {
        let mut live = self.live_sessions(caller.user_id).await?;
        live.retain(|session| session.session_id != caller.session_id);
        Ok(live)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Api, PASSWORD};

    #[tokio::test]
    async fn the_new_one_holds_and_other_sessions_end() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        let elsewhere = api.log_in("ann").await;
        let body = json!({"current_password": PASSWORD, "new_password": "battery staple"});
        api.put("/v1/users/me/password", &ann, body).await.ok();
        api.patch("/v1/users/me", &ann, json!({})).await.ok();
        api.patch("/v1/users/me", &elsewhere, json!({})).await.is(401);
        api.refresh(&elsewhere).await.is(401);
        api.refresh(&ann).await.ok();
        let log_in =
            async |password: &str| api.post("/v1/sessions", None, json!({"login": "ann", "password": password})).await;
        log_in(PASSWORD).await.is(401);
        log_in("battery staple").await.created();
        assert_eq!(api.events("session.revoked").await, 1);
    }

    #[tokio::test]
    async fn what_ends_with_the_old_one_is_caused_by_the_change() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        api.log_in("ann").await;
        let body = json!({"current_password": PASSWORD, "new_password": "battery staple"});
        api.put("/v1/users/me/password", &ann, body).await.ok();
        let log = api.log().await;
        let one = |kind: &str| log.iter().find(|event| event.event_type == kind).unwrap();
        let (changed, revoked) = (one("user.password_changed"), one("session.revoked"));
        let (cause, effect) = (changed.metadata.as_ref().unwrap(), revoked.metadata.as_ref().unwrap());
        assert_eq!((cause.causation_id, effect.causation_id), (None, Some(changed.event_id)));
        assert!(cause.correlation_id.is_some() && cause.correlation_id == effect.correlation_id);
        assert_eq!(cause.traceparent, effect.traceparent);
    }

    #[tokio::test]
    async fn a_wrong_current_one_is_forbidden_and_ends_nothing() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        let elsewhere = api.log_in("ann").await;
        let body = json!({"current_password": "battery staple", "new_password": "battery staple"});
        api.put("/v1/users/me/password", &ann, body).await.is(403);
        api.patch("/v1/users/me", &elsewhere, json!({})).await.ok();
        let body = json!({"current_password": PASSWORD, "new_password": "short"});
        assert_eq!(api.put("/v1/users/me/password", &ann, body).await.is(422).pointers(), ["/new_password"]);
    }
}
