//! `POST /v1/sessions`

use axum::extract::State;
use http::StatusCode;
use platform::http::{Json, Problem, RequestContext};
use platform::limits::Bucket;
use schemas::rest::{LogIn, SessionTokens};
use time::Duration;
use uuid::Uuid;

use crate::address::{ClientAddress, Whence};
use crate::answer::Answer;
use crate::commands::{DEVICES, EMAILS, LiveSession, StartRefusal, StartSession, USERNAMES, device_key};
use crate::docs::BodyProblems;
use crate::execute::token;
use crate::refresh_token::{RefreshToken, hash};
use crate::service::Service;
use crate::validate::{Checks, email, username};

/// Log-ins at once on one device that are let win before this one gives up.
const MOST_RACES: u32 = 8;

/// Log in on a device; the session that lived there ends
#[utoipa::path(
    post, path = "/v1/sessions", tag = "sessions", request_body = LogIn,
    responses(
        (status = 201, body = SessionTokens),
        (status = 401, body = schemas::rest::Problem, content_type = "application/problem+json",
            description = "Login and password do not belong together"),
        (status = 429, body = schemas::rest::Problem, content_type = "application/problem+json",
            description = "Too many attempts"),
        (status = 503, body = schemas::rest::Problem, content_type = "application/problem+json",
            description = "A dependency is away, or load is shed"),
        BodyProblems,
    ),
)]
pub(crate) async fn log_in(
    State(service): State<Service>,
    address: ClientAddress,
    Whence(client): Whence,
    context: RequestContext,
    Json(body): Json<LogIn>,
) -> Result<Answer<SessionTokens>, Problem> {
    let mut checks = Checks::default();
    checks.optional_name("/device_name", body.device_name.as_deref());
    checks.done()?;
    let wrong = || Problem::unauthorized_because("login and password do not belong together");
    let who = [body.login.to_lowercase().as_bytes(), &[0], &address.network()[..]].concat();
    let allowed = service.inner.parts.limiter.check(Bucket::Logins, &who).await;
    allowed.map_err(|retry| Problem::rate_limited(retry.seconds()))?;

    // Every step is taken for an unknown user too, so that the answer takes as long.
    let user_id = service.user_by_login(&body.login).await?.unwrap_or_default();
    let password_hash = service.password_hash(user_id).await?;
    if !service.inner.passwords.verify(body.password, password_hash.as_deref()).await? {
        return Err(wrong());
    }

    let settings = service.inner.parts.settings;
    let device_id = body.device_id.unwrap_or_else(Uuid::now_v7);
    let refresh = RefreshToken { user_id, session_id: Uuid::now_v7(), generation: 0 };
    let device = device_key(user_id, device_id);
    let mut previous = service.store().log().lookup(DEVICES, &device).await?;
    for _ in 0..MOST_RACES {
        if let Some(session_id) = previous {
            service.refuse_tokens(&[LiveSession { session_id, device_id: None }]).await?;
        }
        let command = StartSession {
            user_id,
            session_id: refresh.session_id,
            device_id,
            device_name: body.device_name.clone(),
            refresh_hash: hash(&refresh.text(service.authenticator().keyring())),
            refresh_ttl: Duration::try_from(settings.refresh_ttl).unwrap_or(Duration::DAY),
            session_ttl: Duration::try_from(settings.session_ttl).unwrap_or(Duration::DAY),
            client: client.clone(),
            checked_against: password_hash.clone().unwrap_or_default(),
            previous,
        };
        match service.attempt(command, &context).await? {
            Ok(executed) => {
                let tokens = service.tokens(refresh, device_id, executed.output);
                return Ok(Answer { status: StatusCode::CREATED, position: token(executed.position), body: tokens });
            }
            Err(StartRefusal::DeviceMoved(lives)) => previous = lives,
            Err(StartRefusal::Credentials) => return Err(wrong()),
            Err(StartRefusal::Exists) => break,
        }
    }
    Err(Problem::unavailable("too many log-ins at once on this device"))
}

impl Service {
    /// Whose username or e-mail address this is.
    async fn user_by_login(&self, login: &str) -> Result<Option<Uuid>, Problem> {
        let log = self.store().log();
        Ok(match (email(login), username(login)) {
            (Some(email), _) => log.lookup(EMAILS, &email).await?,
            // What cannot be a name is looked for as one that cannot be had.
            (None, name) => log.lookup(USERNAMES, name.as_deref().unwrap_or_default()).await?,
        })
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::json;
    use uuid::Uuid;

    use crate::testing::{Api, PASSWORD};

    #[tokio::test]
    async fn gives_tokens_of_a_new_session() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        let device = Uuid::new_v4();
        let body = json!({"login": "ann", "password": PASSWORD, "device_id": device, "device_name": "phone"});
        let session = api.post("/v1/sessions", None, body).await.created();
        assert_eq!(session["user_id"], json!(ann.user_id));
        assert_eq!(session["device_id"], json!(device));
        assert_eq!(session["token_type"], "Bearer");
        assert!(session["access_expires_at"].as_str().unwrap().ends_with('Z'));
        assert!(session.header("position").is_some());
        assert_ne!(session["session_id"], json!(ann.session_id));
    }

    #[tokio::test]
    async fn the_answer_is_the_same_for_unknown_users_and_wrong_passwords() {
        let api = Api::new().await;
        api.user("ann").await;
        let mut answers = Vec::new();
        for (login, password) in
            [("ann", "battery staple"), ("nobody", PASSWORD), ("a\0b", PASSWORD), ("", ""), ("x@y", "z")]
        {
            let refused = api.post("/v1/sessions", None, json!({"login": login, "password": password})).await.is(401);
            answers.push((refused["type"].clone(), refused["detail"].clone()));
        }
        answers.dedup();
        assert_eq!(answers.len(), 1);
    }

    #[tokio::test]
    async fn a_bad_device_is_pointed_at() {
        let api = Api::new().await;
        let body = json!({"login": "ann", "password": PASSWORD, "device_id": "phone"});
        assert_eq!(api.post("/v1/sessions", None, body).await.is(422).pointers(), ["/device_id"]);
        let body = json!({"login": "ann", "password": PASSWORD, "device_name": "\0"});
        assert_eq!(api.post("/v1/sessions", None, body).await.is(422).pointers(), ["/device_name"]);
    }

    #[tokio::test]
    async fn a_new_log_in_on_a_device_ends_its_earlier_session() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        let again = api.log_in_on("ann", ann.device_id).await;
        assert_ne!(again.session_id, ann.session_id);
        api.patch("/v1/users/me", &ann, json!({})).await.is(401);
        api.refresh(&ann).await.is(401);
        api.patch("/v1/users/me", &again, json!({})).await.ok();
        assert_eq!(api.events("session.revoked").await, 1);
    }

    #[tokio::test]
    async fn of_log_ins_at_once_on_a_device_one_session_lives() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        let log_in = || api.log_in_on("ann", ann.device_id);
        let sessions: [_; 3] = tokio::join!(log_in(), log_in(), log_in()).into();
        let mut alive = 0;
        for session in &sessions {
            alive += usize::from(api.refresh(session).await.status == StatusCode::OK);
        }
        assert_eq!(alive, 1);
        assert_eq!(api.events("session.revoked").await, 3);
    }

    #[tokio::test]
    async fn guessing_is_slowed_down() {
        let api = Api::limited().await;
        api.user("ann").await;
        let guess = async |login: &str| {
            api.post("/v1/sessions", None, json!({"login": login, "password": "battery staple"})).await
        };
        // The helper has logged in once.
        for _ in 0..9 {
            guess("ann").await.is(401);
        }
        let refused = guess("ANN").await.is(429);
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=3600).contains(&seconds));
        assert_eq!(refused["retryable"], true);
        guess("ben").await.is(401);
    }
}
