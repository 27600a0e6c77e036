//! `POST /v1/users`

use axum::extract::State;
use domain::user::{Registered as Account, UserRefusal};
use platform::http::{Json, Problem, RequestContext};
use schemas::rest::{Register, Registered};
use uuid::Uuid;

use crate::answer::Answer;
use crate::commands::{EMAILS, RegisterUser, USERNAMES};
use crate::docs::BodyProblems;
use crate::execute::{Refusal, token};
use crate::service::Service;
use crate::validate::{Checks, email, username};

/// Make an account
#[utoipa::path(
    post, path = "/v1/users", tag = "users", request_body = Register,
    responses(
        (status = 201, body = Registered),
        (status = 409, body = schemas::rest::Problem, content_type = "application/problem+json",
            description = "The username or the e-mail address is taken"),
        (status = 503, body = schemas::rest::Problem, content_type = "application/problem+json",
            description = "A dependency is away, or load is shed"),
        BodyProblems,
    ),
)]
pub(crate) async fn register(
    State(service): State<Service>,
    context: RequestContext,
    Json(body): Json<Register>,
) -> Result<Answer<Registered>, Problem> {
    let mut checks = Checks::default();
    let username = username(&body.username);
    checks.expect(username.is_some(), "/username", "3 to 32 of a-z 0-9 _ . -");
    let email_key = email(&body.email);
    checks.expect(email_key.is_some(), "/email", "an e-mail address");
    checks.password("/password", &body.password);
    checks.optional_name("/display_name", body.display_name.as_deref());
    checks.done()?;
    let (username, email_key) = (username.unwrap_or_default(), email_key.unwrap_or_default());

    // Asked before the costly hash, and again when it counts.
    let log = service.store().log();
    if log.lookup(USERNAMES, &username).await?.is_some() {
        return Err(UserRefusal::UsernameTaken.problem());
    }
    if log.lookup(EMAILS, &email_key).await?.is_some() {
        return Err(UserRefusal::EmailTaken.problem());
    }
    let password_hash = service.inner.passwords.hash(body.password).await?;
    let user_id = Uuid::now_v7();
    let account = Account { username, email: body.email, display_name: body.display_name, password_hash };
    let executed = service.execute(RegisterUser { user_id, account, email_key }, &context).await?;
    let position = token(executed.position);
    Ok(Answer::made(true, position.clone(), Registered { user_id, position }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Api;

    #[tokio::test]
    async fn makes_an_account_that_one_can_log_in_to() {
        let api = Api::new().await;
        let body = json!({
            "username": "Ann.Lee", "email": "Ann@Example.org", "password": "correct horse", "display_name": "Ann",
            "unknown": {"ignored": true},
        });
        let made = api.post("/v1/users", None, body).await.created();
        assert_eq!(made.header("position"), made["position"].as_str());
        for login in ["ann.lee", "ANN.LEE", "ann@example.ORG"] {
            let body = json!({"login": login, "password": "correct horse"});
            let session = api.post("/v1/sessions", None, body).await.created();
            assert_eq!(session["user_id"], made["user_id"]);
        }
    }

    #[tokio::test]
    async fn refuses_what_is_taken_without_case() {
        let api = Api::new().await;
        let register = async |username: &str, email: &str| {
            let body = json!({"username": username, "email": email, "password": "correct horse", "display_name": null});
            api.post("/v1/users", None, body).await
        };
        register("ann", "ann@example.org").await.created();
        register("ANN", "other@example.org").await.is(409);
        register("other", "Ann@Example.Org").await.is(409);
        register("other", "other@example.org").await.created();
    }

    #[tokio::test]
    async fn of_two_at_once_one_gets_the_name() {
        let api = Api::new().await;
        let register = |n: u32| {
            let api = &api;
            let body = json!({"username": "ann", "email": format!("{n}@example.org"), "password": "correct horse"});
            async move { api.post("/v1/users", None, body).await.status.as_u16() }
        };
        let (one, two, three) = tokio::join!(register(1), register(2), register(3));
        let mut statuses = [one, two, three];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409, 409]);
    }

    #[tokio::test]
    async fn names_all_that_is_wrong() {
        let api = Api::new().await;
        let body = json!({"username": "a", "email": "nobody", "password": "short", "display_name": "a\nb"});
        let refused = api.post("/v1/users", None, body).await.is(422);
        assert_eq!(refused.pointers(), ["/username", "/email", "/password", "/display_name"]);
        let body = json!({"username": "ann", "email": "a@b", "password": "x".repeat(129)});
        assert_eq!(api.post("/v1/users", None, body).await.is(422).pointers(), ["/password"]);
        assert_eq!(api.post("/v1/users", None, json!({"email": 7})).await.is(422).pointers(), ["/email"]);
        let body = json!({"username": "ann", "email": "a@b", "password": "ä".repeat(8)});
        api.post("/v1/users", None, body).await.created();
    }
}
