//! `POST /v1/conversations`

use std::collections::HashSet;

use axum::extract::State;
use domain::conversation::{Created, Kind, Role};
use domain::user::User;
use platform::auth::Caller;
use platform::http::{Json, Problem, RequestContext};
use schemas::PositionToken;
use schemas::rest::{ConversationOpened, CreateConversation};
use uuid::Uuid;

use crate::answer::Answer;
use crate::commands::{FindConversation, OpenConversation, OpenRefusal};
use crate::docs::{BodyProblems, CallerProblems};
use crate::execute::{Refusal, token_of};
use crate::service::Service;
use crate::validate::Checks;

/// Open a conversation; a pair of users has one for ever
#[utoipa::path(
    post, path = "/v1/conversations", tag = "conversations", request_body = CreateConversation,
    security(("bearer" = [])),
    responses(
        (status = 201, body = ConversationOpened),
        (status = 200, body = ConversationOpened, description = "It was there"),
        (status = 409, body = schemas::rest::Problem, content_type = "application/problem+json",
            description = "The id is in use for something else"),
        CallerProblems, BodyProblems,
    ),
)]
pub(crate) async fn open(
    State(service): State<Service>,
    caller: Caller,
    context: RequestContext,
    Json(body): Json<CreateConversation>,
) -> Result<Answer<ConversationOpened>, Problem> {
    let kind = match body.kind {
        schemas::Kind::Direct => Kind::Direct,
        schemas::Kind::Group => Kind::Group,
    };
    let mut seen = HashSet::from([caller.user_id]);
    let others: Vec<Uuid> = body.member_ids.iter().copied().filter(|id| seen.insert(*id)).collect();
    let mut checks = Checks::default();
    checks.optional_name("/name", body.name.as_deref());
    if kind == Kind::Direct {
        checks.expect(body.name.is_none(), "/name", "a direct conversation has no name");
        checks.expect(others.len() == 1, "/member_ids", "a direct conversation has exactly one other member");
    }
    checks.done()?;
    service.expect_users(&body.member_ids).await?;

    let owner = [(caller.user_id, Role::Owner)];
    let members = owner.into_iter().chain(others.into_iter().map(|id| (id, Role::Member))).collect();
    let history = body.history.map(super::history).unwrap_or_default();
    let created = Created { kind, name: body.name, history, members, by: caller.user_id };
    let conversation_id = body.conversation_id.unwrap_or_else(Uuid::now_v7);
    let answer = |fresh, conversation_id, position: PositionToken| {
        Answer::made(fresh, position.clone(), ConversationOpened { conversation_id, position })
    };
    match service.attempt(OpenConversation { conversation_id, created }, &context).await? {
        Ok(executed) => Ok(answer(executed.changed, conversation_id, token_of(executed.output))),
        Err(OpenRefusal::PairHas(conversation_id)) => {
            let found = service.execute(FindConversation { conversation_id }, &context).await?;
            let first = found.output.ok_or_else(Problem::not_found)?;
            Ok(answer(false, conversation_id, token_of(first)))
        }
        Err(refusal) => Err(refusal.problem()),
    }
}

impl Service {
    /// Refuses those of `/member_ids` who are no users.
    async fn expect_users(&self, ids: &[Uuid]) -> Result<(), Problem> {
        let known = if ids.is_empty() { HashSet::new() } else { self.store().log().exists::<User>(ids).await? };
        let mut checks = Checks::default();
        for (index, _) in ids.iter().enumerate().filter(|(_, id)| !known.contains(id)) {
            checks.refuse(format!("/member_ids/{index}"), "no such user");
        }
        checks.done()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use crate::testing::Api;

    #[tokio::test]
    async fn opens_a_group_once() {
        let api = Api::new().await;
        let (ann, ben, eve) = (api.user("ann").await, api.user("ben").await, api.user("eve").await);
        let id = Uuid::now_v7();
        let group = |name: &str, members: &[Uuid]| json!({"conversation_id": id, "type": "group", "name": name, "member_ids": members});
        let made =
            api.post("/v1/conversations", Some(&ann), group("trip", &[ben.user_id, eve.user_id])).await.created();
        assert_eq!(made["conversation_id"], json!(id));
        assert_eq!(made.header("position"), made["position"].as_str());
        // Oneself and doubles are dropped; the order does not count.
        let same = group("trip", &[eve.user_id, ben.user_id, ann.user_id, eve.user_id]);
        let again = api.post("/v1/conversations", Some(&ann), same.clone()).await.ok();
        assert_eq!(again["position"], made["position"]);
        api.post("/v1/conversations", Some(&ann), group("trip", &[ben.user_id])).await.is(409);
        api.post("/v1/conversations", Some(&ann), group("journey", &[ben.user_id, eve.user_id])).await.is(409);
        api.post("/v1/conversations", Some(&ben), same).await.is(409);
        assert_eq!(api.events("conversation.created").await, 1);
    }

    #[tokio::test]
    async fn a_group_of_one_without_a_name_is_a_group() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        for members in [json!(null), json!([]), json!([ann.user_id])] {
            api.post("/v1/conversations", Some(&ann), json!({"type": "group", "member_ids": members})).await.created();
        }
    }

    #[tokio::test]
    async fn a_pair_has_one_whoever_asks() {
        let api = Api::new().await;
        let (ann, ben) = (api.user("ann").await, api.user("ben").await);
        let open = |by, other: Uuid, id: Option<Uuid>| {
            api.post(
                "/v1/conversations",
                Some(by),
                json!({"conversation_id": id, "type": "direct", "member_ids": [other]}),
            )
        };
        let made = open(&ann, ben.user_id, None).await.created();
        for answer in [
            open(&ann, ben.user_id, None).await,
            open(&ben, ann.user_id, None).await,
            open(&ben, ann.user_id, Some(Uuid::now_v7())).await,
        ] {
            let answer = answer.ok();
            assert_eq!(answer["conversation_id"], made["conversation_id"]);
            assert_eq!(answer["position"], made["position"]);
        }
    }

    #[tokio::test]
    async fn a_pair_that_opens_from_both_sides_at_once_has_one() {
        let api = Api::new().await;
        let (ann, ben) = (api.user("ann").await, api.user("ben").await);
        let open =
            |by, other: Uuid| api.post("/v1/conversations", Some(by), json!({"type": "direct", "member_ids": [other]}));
        let (a, b, c) = tokio::join!(open(&ann, ben.user_id), open(&ben, ann.user_id), open(&ann, ben.user_id));
        let mut statuses = [&a, &b, &c].map(|answer| answer.status.as_u16());
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 201]);
        assert!(a["conversation_id"] == b["conversation_id"] && b["conversation_id"] == c["conversation_id"]);
    }

    #[tokio::test]
    async fn refuses_by_pointer() {
        let api = Api::new().await;
        let (ann, ben) = (api.user("ann").await, api.user("ben").await);
        let nobody = Uuid::now_v7();
        let cases = [
            (
                json!({"type": "group", "member_ids": [ben.user_id, nobody, ann.user_id, nobody]}),
                &["/member_ids/1", "/member_ids/3"][..],
            ),
            (json!({"type": "direct", "member_ids": [nobody]}), &["/member_ids/0"]),
            (json!({"type": "direct", "member_ids": []}), &["/member_ids"]),
            (json!({"type": "direct", "member_ids": [ann.user_id]}), &["/member_ids"]),
            (json!({"type": "direct", "member_ids": [ben.user_id, nobody]}), &["/member_ids"]),
            (json!({"type": "direct", "name": "us", "member_ids": [ben.user_id]}), &["/name"]),
            (json!({"type": "group", "name": "x".repeat(101)}), &["/name"]),
            (json!({"type": "crowd"}), &["/type"]),
            (json!({}), &["/type"]),
            (json!({"type": "group", "history": "none"}), &["/history"]),
            (json!({"type": "group", "member_ids": ["ben"]}), &["/member_ids/0"]),
        ];
        for (body, pointers) in cases {
            let refused = api.post("/v1/conversations", Some(&ann), body.clone()).await.is(422);
            assert_eq!(refused.pointers(), pointers, "{body}");
        }
    }
}
