//! `PATCH /v1/conversations/{conversation_id}`

use axum::extract::State;
use platform::auth::Caller;
use platform::http::{Json, PathId, Problem, RequestContext};
use schemas::rest::{ChangeConversation, Done};

use crate::answer::Answer;
use crate::commands;
use crate::docs::{BodyProblems, CallerProblems, ConversationProblems};
use crate::execute::token;
use crate::service::Service;
use crate::validate::Checks;

/// Rename a group, or change what its members see of the time before them
#[utoipa::path(
    patch, path = "/v1/conversations/{conversation_id}", tag = "conversations", request_body = ChangeConversation,
    security(("bearer" = [])), params(("conversation_id" = Uuid, Path)),
    responses((status = 200, body = Done), CallerProblems, ConversationProblems, BodyProblems),
)]
pub(crate) async fn change(
    State(service): State<Service>,
    caller: Caller,
    PathId(conversation_id): PathId,
    context: RequestContext,
    Json(body): Json<ChangeConversation>,
) -> Result<Answer<Done>, Problem> {
    let mut checks = Checks::default();
    checks.optional_name("/name", body.name.as_deref());
    checks.done()?;
    let command = commands::ChangeConversation {
        conversation_id,
        by: caller.user_id,
        name: body.name,
        history: body.history.map(super::history),
    };
    let executed = service.execute(command, &context).await?;
    let position = token(executed.position);
    Ok(Answer::ok(position.clone(), Done { position }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use crate::testing::Api;

    #[tokio::test]
    async fn changes_what_is_given_once() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        let group = format!("/v1/conversations/{}", api.group(&ann, &[]).await);
        let both = json!({"name": "trip", "history": "since_join"});
        let first = api.patch(&group, &ann, both.clone()).await.ok();
        assert_eq!(first.header("position"), first["position"].as_str());
        for body in [both, json!({}), json!({"name": null, "history": null})] {
            api.patch(&group, &ann, body).await.ok();
        }
        assert_eq!(api.events("conversation.renamed").await, 1);
        assert_eq!(api.events("conversation.settings_changed").await, 1);
    }

    #[tokio::test]
    async fn is_for_owners_and_admins_of_groups() {
        let api = Api::new().await;
        let (ann, ben, eve) = (api.user("ann").await, api.user("ben").await, api.user("eve").await);
        let id = api.group(&ann, &[&ben]).await;
        let group = format!("/v1/conversations/{id}");
        let rename = async |by| api.patch(&group, by, json!({"name": "ours"})).await;
        rename(&ben).await.is(403);
        rename(&eve).await.is(404);
        api.delete(&format!("{group}/members/me"), &ben).await.ok();
        rename(&ben).await.is(403);
        let direct = format!("/v1/conversations/{}", api.direct(&ann, &ben).await);
        api.patch(&direct, &ann, json!({"name": "us"})).await.is(409);
        for unknown in [Uuid::now_v7().to_string(), "nonsense".into()] {
            api.patch(&format!("/v1/conversations/{unknown}"), &ann, json!({"name": "x"})).await.is(404);
        }
        assert_eq!(api.patch(&group, &ann, json!({"name": ""})).await.is(422).pointers(), ["/name"]);
    }
}
