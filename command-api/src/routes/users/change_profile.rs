//! `PATCH /v1/users/me`

use axum::extract::State;
use platform::auth::Caller;
use platform::http::{Json, Problem, RequestContext};
use schemas::rest::{ChangeProfile, Done};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::answer::Answer;
use crate::commands;
use crate::docs::{BodyProblems, CallerProblems};
use crate::execute::token;
use crate::service::Service;
use crate::validate::Checks;

/// The body, with what it may name that cannot be set.
#[derive(Deserialize)]
pub(crate) struct Body {
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default)]
    avatar_file_id: Option<IgnoredAny>,
}

/// Change one's profile: what is given, the rest stays
#[utoipa::path(
    patch, path = "/v1/users/me", tag = "users", request_body = ChangeProfile, security(("bearer" = [])),
    responses((status = 200, body = Done), CallerProblems, BodyProblems),
)]
pub(crate) async fn change_profile(
    State(service): State<Service>,
    caller: Caller,
    context: RequestContext,
    Json(body): Json<Body>,
) -> Result<Answer<Done>, Problem> {
    let mut checks = Checks::default();
    checks.optional_name("/display_name", body.display_name.as_deref());
    checks.expect(body.avatar_file_id.is_none(), "/avatar_file_id", "not a file of yours");
    checks.done()?;

    let command = commands::ChangeProfile { user_id: caller.user_id, display_name: body.display_name };
    let executed = service.execute(command, &context).await?;
    let position = token(executed.position);
    Ok(Answer::ok(position.clone(), Done { position }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Api;

    #[tokio::test]
    async fn changes_once_and_leaves_what_is_absent() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        let change = async |body| api.patch("/v1/users/me", &ann, body).await;
        let first = change(json!({"display_name": "Ann"})).await.ok();
        assert_eq!(first.header("position"), first["position"].as_str());
        let again = change(json!({"display_name": "Ann"})).await.ok();
        let nothing = change(json!({"display_name": null, "avatar_file_id": null})).await.ok();
        assert_eq!((&again["position"], &nothing["position"]), (&first["position"], &first["position"]));
        assert_eq!(api.events("user.profile_changed").await, 1);
    }

    #[tokio::test]
    async fn refuses_names_that_are_none_and_avatars() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        let body = json!({"display_name": "", "avatar_file_id": uuid::Uuid::now_v7()});
        let refused = api.patch("/v1/users/me", &ann, body).await.is(422);
        assert_eq!(refused.pointers(), ["/display_name", "/avatar_file_id"]);
        let refused = api.patch("/v1/users/me", &ann, json!({"display_name": 7})).await.is(422);
        assert_eq!(refused.pointers(), ["/display_name"]);
    }
}
