//! `PUT /v1/conversations/{conversation_id}/receipts/me`, and the same without HTTP.

use axum::extract::State;
use platform::auth::Caller;
use platform::http::{Json, PathId, Problem, RequestContext};
use schemas::rest::{AdvanceReceipt, ReceiptAdvanced};
use uuid::Uuid;

use crate::answer::Answer;
use crate::commands::{self, Moved};
use crate::docs::{BodyProblems, CallerProblems, ConversationProblems};
use crate::execute::token;
use crate::receipts::ReceiptMove;
use crate::service::Service;

/// Say how far one has got; only forward
#[utoipa::path(
    put, path = "/v1/conversations/{conversation_id}/receipts/me", tag = "messages", request_body = AdvanceReceipt,
    security(("bearer" = [])), params(("conversation_id" = Uuid, Path)),
    responses((status = 200, body = ReceiptAdvanced), CallerProblems, ConversationProblems, BodyProblems),
)]
pub(crate) async fn advance_receipt(
    State(service): State<Service>,
    caller: Caller,
    PathId(conversation_id): PathId,
    context: RequestContext,
    Json(body): Json<AdvanceReceipt>,
) -> Result<Answer<ReceiptAdvanced>, Problem> {
    let AdvanceReceipt { delivered_to, read_to } = body;
    let command = commands::AdvanceReceipt {
        conversation_id,
        user_id: caller.user_id,
        delivered: delivered_to.map(|to| Moved { to, device_id: Some(caller.device_id) }),
        // What is read by REST is read on no device.
        read: read_to.map(|to| Moved { to, device_id: None }),
    };
    let advanced = service.advanced(command, &context).await?;
    if let Some(acked) = delivered_to {
        service.move_cursor(&caller, conversation_id, acked).await?;
    }
    Ok(Answer::ok(advanced.position.clone(), advanced))
}

impl Service {
    /// Carries a receipt out at once, for one who waits for what comes of it; moves no cursor.
    ///
    /// Where nobody waits, [`Service::take_receipt`] costs less.
    ///
    /// # Errors
    /// What `PUT …/receipts/me` answers.
    pub async fn advance(&self, receipt: ReceiptMove, context: &RequestContext) -> Result<ReceiptAdvanced, Problem> {
        let moved = |to: u64| Moved { to, device_id: Some(receipt.device_id) };
        let command = commands::AdvanceReceipt {
            conversation_id: receipt.conversation_id,
            user_id: receipt.user_id,
            delivered: receipt.delivered_to.map(moved),
            read: receipt.read_to.map(moved),
        };
        self.advanced(command, context).await
    }

    async fn advanced(
        &self,
        command: commands::AdvanceReceipt,
        context: &RequestContext,
    ) -> Result<ReceiptAdvanced, Problem> {
        let executed = self.execute(command, context).await?;
        let (delivered_to, read_to) = executed.output;
        Ok(ReceiptAdvanced { delivered_to, read_to, position: token(executed.position) })
    }

    /// The device has everything up to `acked`; a cursor never goes back.
    async fn move_cursor(&self, caller: &Caller, conversation_id: Uuid, acked: u64) -> Result<(), Problem> {
        sqlx::query(
            "INSERT INTO state.device_cursors AS c (user_id, device_id, conversation_id, acked, acked_at)
             VALUES ($1, $2, $3, $4, now())
             ON CONFLICT (user_id, device_id, conversation_id)
             DO UPDATE SET acked = excluded.acked, acked_at = excluded.acked_at WHERE c.acked < excluded.acked",
        )
        .bind(caller.user_id)
        .bind(caller.device_id)
        .bind(conversation_id)
        .bind(i64::try_from(acked).unwrap_or(i64::MAX))
        .execute(&self.inner.parts.pool)
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use platform::http::RequestContext;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use crate::receipts::ReceiptMove;
    use crate::testing::{Account, Answered, Api};

    async fn advance(api: &Api, by: &Account, conversation: Uuid, body: Value) -> Answered {
        api.put(&format!("/v1/conversations/{conversation}/receipts/me"), by, body).await
    }

    #[tokio::test]
    async fn goes_only_forward() {
        let api = Api::new().await;
        let [ann, ben] = api.users(["ann", "ben"]).await;
        let direct = api.direct(&ann, &ben).await;
        for _ in 0..4 {
            api.say(&ann, direct).await;
        }
        let marks = async |body: Value| {
            let answer = advance(&api, &ben, direct, body).await.ok();
            assert_eq!(answer.header("position"), answer["position"].as_str());
            (answer["delivered_to"].as_u64().unwrap(), answer["read_to"].as_u64().unwrap())
        };
        assert_eq!(marks(json!({})).await, (0, 0));
        assert_eq!(marks(json!({"delivered_to": 2})).await, (2, 0));
        assert_eq!(marks(json!({"delivered_to": 1, "read_to": null})).await, (2, 0));
        assert_eq!(marks(json!({"read_to": 4})).await, (4, 4));
        assert_eq!(marks(json!({"delivered_to": 5, "read_to": 3})).await, (5, 4));
        assert_eq!(api.events("message.delivered").await, 2);
        assert_eq!(api.events("message.read").await, 1);
        let cursor: i64 = sqlx::query_scalar("SELECT acked FROM state.device_cursors WHERE device_id = $1")
            .bind(ben.device_id)
            .fetch_one(api.pool())
            .await
            .unwrap();
        assert_eq!(cursor, 5);
    }

    #[tokio::test]
    async fn the_same_without_http_names_the_device() {
        let api = Api::new().await;
        let [ann, ben] = api.users(["ann", "ben"]).await;
        let direct = api.direct(&ann, &ben).await;
        let Account { user_id, device_id, .. } = ben;
        let (delivered_to, read_to) = (Some(1), Some(1));
        let receipt = ReceiptMove { conversation_id: direct, user_id, device_id, delivered_to, read_to };
        let advanced = api.service.advance(receipt, &RequestContext::bare()).await.unwrap();
        assert_eq!((advanced.delivered_to, advanced.read_to), (1, 1));
        let read = api.log().await.into_iter().find(|event| event.event_type == "message.read").unwrap();
        assert!(read.payload.contains(&device_id.to_string()) && read.metadata.is_none());
        let beyond = ReceiptMove { read_to: Some(9), ..receipt };
        let refused = api.service.advance(beyond, &RequestContext::bare()).await.unwrap_err();
        assert_eq!(refused.status(), http::StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[tokio::test]
    async fn refuses_what_lies_beyond_the_head_and_those_who_are_no_members() {
        let api = Api::new().await;
        let [ann, ben, eve] = api.users(["ann", "ben", "eve"]).await;
        let group = api.group(&ann, &[&ben]).await;
        let pointers = async |body: Value| advance(&api, &ben, group, body).await.is(422).pointers();
        assert_eq!(pointers(json!({"delivered_to": 2})).await, ["/delivered_to"]);
        assert_eq!(pointers(json!({"read_to": 2})).await, ["/read_to"]);
        assert_eq!(pointers(json!({"read_to": -1})).await, ["/read_to"]);
        advance(&api, &eve, group, json!({"read_to": 1})).await.is(404);
        advance(&api, &eve, Uuid::now_v7(), json!({})).await.is(404);
        api.delete(&format!("/v1/conversations/{group}/members/me"), &ben).await.ok();
        advance(&api, &ben, group, json!({"read_to": 1})).await.is(403);
    }

    #[tokio::test]
    async fn one_who_comes_later_starts_at_the_own_joining() {
        let api = Api::new().await;
        let [ann, ben] = api.users(["ann", "ben"]).await;
        let group = api.group(&ann, &[]).await;
        api.say(&ann, group).await;
        let path = format!("/v1/conversations/{group}/members/{}", ben.user_id);
        api.put(&path, &ann, json!({"role": "member"})).await.ok();
        let answer = advance(&api, &ben, group, json!({"read_to": 1})).await.ok();
        assert_eq!((&answer["delivered_to"], &answer["read_to"]), (&json!(3), &json!(3)));
    }
}
