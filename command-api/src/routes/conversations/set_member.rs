//! `PUT /v1/conversations/{conversation_id}/members/{user_id}`

use axum::extract::State;
use domain::user::User;
use platform::auth::Caller;
use platform::http::{Json, Path, PathId, Problem, RequestContext};
use schemas::rest::{Done, SetMember};

use super::MemberPath;
use crate::answer::Answer;
use crate::commands;
use crate::docs::{BodyProblems, CallerProblems, ConversationProblems};
use crate::execute::token;
use crate::service::Service;

/// Add a member, or change a role
#[utoipa::path(
    put, path = "/v1/conversations/{conversation_id}/members/{user_id}", tag = "conversations",
    request_body = SetMember, security(("bearer" = [])),
    params(("conversation_id" = Uuid, Path), ("user_id" = String, Path, description = "A user's id, or `me`")),
    responses((status = 200, body = Done), CallerProblems, ConversationProblems, BodyProblems),
)]
pub(crate) async fn set_member(
    State(service): State<Service>,
    caller: Caller,
    Path(path): Path<MemberPath>,
    context: RequestContext,
    Json(body): Json<SetMember>,
) -> Result<Answer<Done>, Problem> {
    let MemberPath { conversation_id: PathId(conversation_id), user_id } = path;
    let user_id = user_id.id(&caller);
    let user_exists = service.store().log().exists::<User>(&[user_id]).await?.contains(&user_id);
    let command =
        commands::SetMember { conversation_id, by: caller.user_id, user_id, role: super::role(body.role), user_exists };
    let executed = service.execute(command, &context).await?;
    let position = token(executed.position);
    Ok(Answer::ok(position.clone(), Done { position }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use crate::testing::{Account, Api};

    #[tokio::test]
    async fn adds_and_changes_roles_once() {
        let api = Api::new().await;
        let (ann, ben) = (api.user("ann").await, api.user("ben").await);
        let group = api.group(&ann, &[]).await;
        let set = async |role: &str| {
            let path = format!("/v1/conversations/{group}/members/{}", ben.user_id);
            api.put(&path, &ann, json!({"role": role})).await.ok()
        };
        let joined = set("member").await;
        assert_eq!(joined.header("position"), joined["position"].as_str());
        set("member").await;
        set("admin").await;
        set("admin").await;
        assert_eq!(api.events("conversation.member_joined").await, 1);
        assert_eq!(api.events("conversation.member_role_changed").await, 1);
    }

    #[tokio::test]
    async fn roles_bound_what_one_may() {
        let api = Api::new().await;
        let [ann, ben, eve, new] = api.users(["ann", "ben", "eve", "new"]).await;
        let group = api.group(&ann, &[&ben]).await;
        let set = async |by: &Account, whom: &str, role: &str| {
            api.put(&format!("/v1/conversations/{group}/members/{whom}"), by, json!({"role": role})).await
        };
        let id = |account: &Account| account.user_id.to_string();
        set(&ben, &id(&new), "member").await.is(403);
        set(&ben, "me", "admin").await.is(403);
        set(&ben, "me", "member").await.ok();
        set(&eve, &id(&new), "member").await.is(404);
        set(&eve, "me", "member").await.is(404);
        set(&ann, "me", "member").await.is(409);
        set(&ann, &Uuid::now_v7().to_string(), "member").await.is(404);
        set(&ann, "nonsense", "member").await.is(404);
        assert_eq!(set(&ann, &id(&new), "king").await.is(422).pointers(), ["/role"]);
        set(&ann, &id(&ben), "admin").await.ok();
        set(&ben, &id(&new), "admin").await.ok();
        set(&ben, &id(&new), "owner").await.is(403);
        set(&ben, &id(&ann), "member").await.is(403);
        let direct = api.direct(&ann, &ben).await;
        let path = format!("/v1/conversations/{direct}/members/{}", eve.user_id);
        api.put(&path, &ann, json!({"role": "member"})).await.is(409);
    }
}
