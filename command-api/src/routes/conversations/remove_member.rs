//! `DELETE /v1/conversations/{conversation_id}/members/{user_id}`

use axum::extract::State;
use platform::auth::Caller;
use platform::http::{Path, PathId, Problem, RequestContext};
use schemas::rest::Done;

use super::MemberPath;
use crate::answer::Answer;
use crate::commands;
use crate::docs::{CallerProblems, ConversationProblems};
use crate::execute::token;
use crate::service::Service;

/// Remove a member, or leave
#[utoipa::path(
    delete, path = "/v1/conversations/{conversation_id}/members/{user_id}", tag = "conversations",
    security(("bearer" = [])),
    params(("conversation_id" = Uuid, Path), ("user_id" = String, Path, description = "A user's id, or `me`")),
    responses((status = 200, body = Done), CallerProblems, ConversationProblems),
)]
pub(crate) async fn remove_member(
    State(service): State<Service>,
    caller: Caller,
    Path(path): Path<MemberPath>,
    context: RequestContext,
) -> Result<Answer<Done>, Problem> {
    let MemberPath { conversation_id: PathId(conversation_id), user_id } = path;
    let command = commands::RemoveMember { conversation_id, by: caller.user_id, user_id: user_id.id(&caller) };
    let executed = service.execute(command, &context).await?;
    let position = token(executed.position);
    Ok(Answer::ok(position.clone(), Done { position }))
}

#[cfg(test)]
mod tests {
    use crate::testing::{Account, Api};

    #[tokio::test]
    async fn anyone_leaves_but_the_last_owner_while_others_remain() {
        let api = Api::new().await;
        let [ann, ben, eve] = api.users(["ann", "ben", "eve"]).await;
        let group = api.group(&ann, &[&ben]).await;
        let remove =
            async |by: &Account, whom: &str| api.delete(&format!("/v1/conversations/{group}/members/{whom}"), by).await;
        let id = |account: &Account| account.user_id.to_string();
        remove(&eve, "me").await.is(404);
        remove(&eve, &id(&ann)).await.is(404);
        remove(&ben, &id(&ann)).await.is(403);
        remove(&ann, "me").await.is(409);
        let left = remove(&ben, "me").await.ok();
        assert_eq!(left.header("position"), left["position"].as_str());
        remove(&ben, &id(&ben)).await.ok();
        remove(&ben, &id(&ann)).await.is(403);
        remove(&ann, &id(&ben)).await.ok();
        remove(&ann, "me").await.ok();
        assert_eq!(api.events("conversation.member_left").await, 2);
    }

    #[tokio::test]
    async fn nobody_leaves_a_direct_conversation() {
        let api = Api::new().await;
        let [ann, ben] = api.users(["ann", "ben"]).await;
        let direct = api.direct(&ann, &ben).await;
        api.delete(&format!("/v1/conversations/{direct}/members/me"), &ann).await.is(409);
        api.delete(&format!("/v1/conversations/{direct}/members/{}", ben.user_id), &ann).await.is(409);
    }
}
