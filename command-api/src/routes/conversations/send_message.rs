//! `POST /v1/conversations/{conversation_id}/messages`, and the same without HTTP.

use axum::extract::State;
use domain::message;
use platform::auth::Caller;
use platform::http::{Json, PathId, Problem, RequestContext};
use platform::limits::{Bucket, RetryAfter};
use schemas::rest::{MessageSent, SendMessage};
use uuid::{Uuid, Variant};

use crate::answer::Answer;
use crate::commands;
use crate::docs::{BodyProblems, CallerProblems, ConversationProblems};
use crate::execute::token_of;
use crate::service::Service;
use crate::validate::Checks;

const LONGEST_CONTENT: usize = 16_384;
const MOST_MENTIONS: usize = 50;
const LONGEST_KIND: usize = 32;
const TEXT: &str = "text";

/// A message that was said.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// What its sender is told; the same, however often they ask.
    pub message: MessageSent,
    /// Whether it was said now, and not before.
    pub fresh: bool,
}

/// A message that is in shape, and was counted.
pub(crate) struct Admitted {
    message_id: Uuid,
    message: message::Sent,
    /// Where its sender says too much: refused then, unless it was said before.
    limited: Option<RetryAfter>,
}

/// Say something; the same `message_id` again is the same message
#[utoipa::path(
    post, path = "/v1/conversations/{conversation_id}/messages", tag = "messages", request_body = SendMessage,
    security(("bearer" = [])), params(("conversation_id" = Uuid, Path)),
    responses(
        (status = 201, body = MessageSent),
        (status = 200, body = MessageSent, description = "It was said before"),
        (status = 429, body = schemas::rest::Problem, content_type = "application/problem+json",
            description = "Too many messages"),
        CallerProblems, ConversationProblems, BodyProblems,
    ),
)]
pub(crate) async fn send_message(
    State(service): State<Service>,
    caller: Caller,
    PathId(conversation_id): PathId,
    context: RequestContext,
    Json(body): Json<SendMessage>,
) -> Result<Answer<MessageSent>, Problem> {
    let Sent { message, fresh } = service.send(&caller, conversation_id, body, &context).await?;
    Ok(Answer::made(fresh, message.position.clone(), message))
}

impl Service {
    /// Says something in a conversation, once.
    ///
    /// # Errors
    /// What `POST …/messages` answers.
    pub async fn send(
        &self,
        caller: &Caller,
        conversation_id: Uuid,
        message: SendMessage,
        context: &RequestContext,
    ) -> Result<Sent, Problem> {
        let admitted = self.admit(caller, message).await?;
        self.say(conversation_id, admitted, context).await
    }

    /// Checks what is to be said, and counts it.
    pub(crate) async fn admit(&self, caller: &Caller, message: SendMessage) -> Result<Admitted, Problem> {
        check(&message)?;
        let message_id = message.message_id;
        let limited = self.inner.parts.limiter.check(Bucket::Messages, caller.user_id.as_bytes()).await.err();
        let message = message::Sent {
            sender_id: caller.user_id,
            kind: message.kind.unwrap_or_else(|| TEXT.to_owned()),
            content: message.content,
            reply_to: message.reply_to,
            mentions: message.mentions,
        };
        Ok(Admitted { message_id, message, limited })
    }

    /// Says what was admitted. It is in the log's queue once it was polled.
    pub(crate) async fn say(
        &self,
        conversation_id: Uuid,
        Admitted { message_id, message, limited }: Admitted,
        context: &RequestContext,
    ) -> Result<Sent, Problem> {
        let command = commands::SendMessage { conversation_id, message_id, message, limited };
        let executed = self.execute(command, context).await?;
        let said = executed.output;
        let message = MessageSent {
            message_id,
            conversation_id,
            seq: said.seq.unwrap_or_default(),
            sent_at: said.at,
            position: token_of(said),
        };
        Ok(Sent { message, fresh: executed.changed })
    }
}

fn check(message: &SendMessage) -> Result<(), Problem> {
    let mut checks = Checks::default();
    let id = message.message_id;
    let version_7 = id.get_version_num() == 7 && id.get_variant() == Variant::RFC4122;
    checks.expect(version_7, "/message_id", "a UUID version 7");
    let content = message.content.as_bytes();
    let right = (1..=LONGEST_CONTENT).contains(&content.len()) && !content.contains(&0);
    checks.expect(right, "/content", "1 to 16,384 bytes without U+0000");
    if let Some(kind) = &message.kind {
        let right = (1..=LONGEST_KIND).contains(&kind.len())
            && kind.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-'));
        checks.expect(right, "/type", "1 to 32 of a-z 0-9 _ . -");
    }
    checks.expect(message.reply_to != Some(id), "/reply_to", "a message that was said before");
    checks.expect(message.mentions.len() <= MOST_MENTIONS, "/mentions", "at most 50 members");
    checks.expect(message.file_ids.is_empty(), "/file_ids", "not files of yours");
    checks.done()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use crate::testing::{Account, Answered, Api};

    async fn send(api: &Api, by: &Account, conversation: Uuid, body: Value) -> Answered {
        api.post(&format!("/v1/conversations/{conversation}/messages"), Some(by), body).await
    }

    fn saying(content: &str) -> Value {
        json!({"message_id": Uuid::now_v7(), "content": content})
    }

    #[tokio::test]
    async fn says_it_once() {
        let api = Api::new().await;
        let [ann, ben] = api.users(["ann", "ben"]).await;
        let direct = api.direct(&ann, &ben).await;
        let message = saying("Grüße 👋\r\n ");
        let said = send(&api, &ann, direct, message.clone()).await.created();
        assert_eq!(said["message_id"], message["message_id"]);
        assert_eq!(said["conversation_id"], json!(direct));
        assert_eq!(said["seq"], 2);
        assert_eq!(said["sent_at"].as_str().unwrap().len(), "2026-01-01T12:00:00.000Z".len());
        assert_eq!(said.header("position"), said["position"].as_str());
        send(&api, &ben, direct, saying("hi")).await.created();
        // null, [] and the default are the same as absent.
        let mut same = message;
        same["type"] = json!("text");
        same["reply_to"] = json!(null);
        same["mentions"] = json!([]);
        let again = send(&api, &ann, direct, same).await.ok();
        assert_eq!(again.body, said.body);
        assert_eq!(api.events("message.sent").await, 2);
    }

    #[tokio::test]
    async fn the_same_id_at_once_is_one_message() {
        let api = Api::new().await;
        let [ann, ben] = api.users(["ann", "ben"]).await;
        let direct = api.direct(&ann, &ben).await;
        let message = saying("hi");
        let again = || send(&api, &ann, direct, message.clone());
        let answers: [_; 4] = tokio::join!(again(), again(), again(), again()).into();
        let made = answers.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(made, 1);
        assert!(answers.iter().all(|answer| answer.body == answers[0].body));
    }

    #[tokio::test]
    async fn an_id_in_use_tells_nothing() {
        let api = Api::new().await;
        let [ann, ben, eve] = api.users(["ann", "ben", "eve"]).await;
        let (direct, group) = (api.direct(&ann, &ben).await, api.group(&ann, &[&ben]).await);
        let message = saying("hi");
        send(&api, &ann, direct, message.clone()).await.created();
        let mut other = message.clone();
        other["content"] = json!("ho");
        let mut answers = vec![
            send(&api, &ann, direct, other).await,
            send(&api, &ben, direct, message.clone()).await,
            send(&api, &ann, group, message.clone()).await,
            send(&api, &eve, direct, message).await,
        ];
        for answer in &mut answers {
            assert_eq!(answer.status, 409);
            answer.body["trace_id"] = json!(null);
            assert_eq!(answer.body["detail"], "this message id is in use");
        }
        assert!(answers.windows(2).all(|pair| pair[0].body == pair[1].body));
    }

    #[tokio::test]
    async fn a_known_id_is_answered_before_membership_and_limits() {
        let api = Api::limited().await;
        let [ann, ben] = api.users(["ann", "ben"]).await;
        let group = api.group(&ann, &[&ben]).await;
        let message = saying("hi");
        let said = send(&api, &ben, group, message.clone()).await.created();
        for _ in 0..2 {
            send(&api, &ben, group, saying("again")).await.created();
        }
        let refused = send(&api, &ben, group, saying("once more")).await.is(429);
        assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
        assert_eq!(refused["retryable"], true);
        assert_eq!(send(&api, &ben, group, message.clone()).await.ok().body, said.body);
        api.delete(&format!("/v1/conversations/{group}/members/me"), &ben).await.ok();
        assert_eq!(send(&api, &ben, group, message).await.ok().body, said.body);
    }

    #[tokio::test]
    async fn is_for_members() {
        let api = Api::new().await;
        let [ann, ben, eve] = api.users(["ann", "ben", "eve"]).await;
        let group = api.group(&ann, &[&ben]).await;
        send(&api, &eve, group, saying("hi")).await.is(404);
        send(&api, &ann, Uuid::now_v7(), saying("hi")).await.is(404);
        api.delete(&format!("/v1/conversations/{group}/members/{}", ben.user_id), &ann).await.ok();
        send(&api, &ben, group, saying("hi")).await.is(403);
        api.post("/v1/conversations/nonsense/messages", Some(&ann), saying("hi")).await.is(404);
    }

    #[tokio::test]
    async fn refuses_by_pointer() {
        let api = Api::new().await;
        let [ann, ben, eve] = api.users(["ann", "ben", "eve"]).await;
        let (direct, elsewhere) = (api.direct(&ann, &ben).await, api.group(&ann, &[]).await);
        let other = saying("elsewhere");
        send(&api, &ann, elsewhere, other.clone()).await.created();
        let with = |field: &str, value: Value| {
            let mut message = saying("hi");
            message[field] = value;
            message
        };
        let cases = [
            (with("message_id", json!(Uuid::new_v4())), "/message_id"),
            (with("message_id", json!(Uuid::nil())), "/message_id"),
            (with("message_id", json!("x")), "/message_id"),
            (with("content", json!("")), "/content"),
            (with("content", json!("a\0b")), "/content"),
            (with("content", json!("x".repeat(16_385))), "/content"),
            (with("content", json!(null)), "/content"),
            (with("type", json!("no blanks")), "/type"),
            (with("type", json!("x".repeat(33))), "/type"),
            (with("reply_to", json!(Uuid::now_v7())), "/reply_to"),
            (with("reply_to", other["message_id"].clone()), "/reply_to"),
            (with("mentions", json!([ben.user_id, eve.user_id])), "/mentions/1"),
            (with("mentions", json!(vec![ben.user_id; 51])), "/mentions"),
            (with("file_ids", json!([Uuid::now_v7()])), "/file_ids"),
        ];
        for (body, pointer) in cases {
            let refused = send(&api, &ann, direct, body.clone()).await.is(422);
            assert_eq!(refused.pointers(), [pointer], "{body}");
            assert!(!refused.body.to_string().contains("a\\u0000b"));
        }
        send(&api, &ann, direct, with("content", json!("ä".repeat(8_192)))).await.created();
        let first = saying("first");
        send(&api, &ben, direct, first.clone()).await.created();
        let mut reply = with("reply_to", first["message_id"].clone());
        reply["mentions"] = json!([ben.user_id, ann.user_id]);
        reply["type"] = json!("note");
        send(&api, &ann, direct, reply).await.created();
    }
}
