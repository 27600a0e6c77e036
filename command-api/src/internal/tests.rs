//! What gateways are answered, and that nobody else is.

use axum::body::Body;
use domain::user::Role;
use event_store::{CommittedBatch, CommittedLines};
use futures::StreamExt;
use http::Request;
use platform::auth::Caller;
use platform::internal::{
    self, Advance, AuditReading, Conversations, Heads, MessagesSent, Outcome, Positions, ReceiptsTaken, SendMessages,
    Spoken, TakeReceipts,
};
use schemas::AuditFilters;
use schemas::rest::{AdvanceReceipt, SendMessage};
use serde_json::json;
use time::OffsetDateTime;
use tower::ServiceExt;
use uuid::Uuid;

use super::*;
use crate::testing::{Account, Api};

fn caller(account: &Account) -> Caller {
    let Account { user_id, session_id, device_id, .. } = *account;
    let expires_at = OffsetDateTime::now_utc() + time::Duration::MINUTE;
    Caller { user_id, session_id, device_id, expires_at }
}

fn saying(by: &Account, content: &str) -> Spoken {
    let message = SendMessage {
        message_id: Uuid::now_v7(),
        content: content.to_owned(),
        kind: None,
        reply_to: None,
        mentions: vec![],
        file_ids: vec![],
    };
    Spoken { caller: caller(by), message, traceparent: None }
}

async fn send(api: &Api, conversation_id: Uuid, messages: Vec<Spoken>) -> Vec<Outcome> {
    let answer = api.internal(SEND, SendMessages { conversation_id, messages }).await.ok();
    serde_json::from_value::<MessagesSent>(answer.body).unwrap().outcomes
}

#[tokio::test]
async fn to_strangers_there_is_nothing() {
    let api = Api::new().await;
    let ann = api.user("ann").await;
    let nowhere = api.post("/internal/v1/nowhere", Some(&ann), json!({})).await.is(404);
    for path in [SEND, ADVANCE, TAKE_RECEIPTS, HEADS, POSITIONS, COMMITTED, READ_AUDIT] {
        let refused = [
            api.post(path, None, json!({})).await,
            api.post(path, Some(&ann), json!({})).await,
            api.put(path, &ann, json!({})).await,
            api.ask(Request::get(path).body(Body::empty()).unwrap()).await,
        ];
        for answer in refused {
            let answer = answer.is(404);
            assert_eq!(answer["detail"], nowhere["detail"], "{path}");
            assert_eq!(answer.header("allow"), None);
        }
    }
}

#[tokio::test]
async fn what_is_committed_is_told_until_the_end() {
    let api = Api::new().await;
    let token = api.service.authenticator().keyring().internal_token();
    let ann = api.user("ann").await;
    let before = api.log().await;
    let shards = [(before[0].topic.code(), before[0].shard)].into();
    let wanted = serde_json::to_vec(&internal::Committed { shards }).unwrap();
    let request = Request::post(COMMITTED).header("authorization", format!("Bearer {token}"));
    let request = request.header("content-type", "application/json").body(Body::from(wanted)).unwrap();
    let answer = api.router.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut pieces = answer.into_body().into_data_stream();
    // Nobody wants to know of him.
    let ben = loop {
        let ben = api.user(&format!("ben{}", api.log().await.len())).await;
        if api.service.store().log().shard_of(ben.user_id) != before[0].shard {
            break ben;
        }
    };
    api.log_in("ann").await;
    let wanted = async || {
        let events = api.log().await.into_iter().filter(|event| event.shard == before[0].shard);
        events.filter(|event| !before.contains(event)).collect::<Vec<_>>()
    };
    let (mut lines, mut told) = (CommittedLines::default(), Vec::new());
    while told.len() < wanted().await.len() {
        for batch in lines.feed(&pieces.next().await.unwrap().unwrap()).unwrap() {
            let CommittedBatch::Events(events) = batch else { panic!("nothing went by") };
            told.extend(events.iter().cloned());
        }
    }
    assert_eq!(told, wanted().await);
    assert!(told.iter().any(|event| event.key == ann.user_id) && told.iter().all(|event| event.key != ben.user_id));
    api.stop();
    assert!(pieces.next().await.is_none());
}

#[tokio::test]
async fn messages_are_said_in_the_order_of_the_list() {
    let api = Api::new().await;
    let [ann, ben] = api.users(["ann", "ben"]).await;
    let direct = api.direct(&ann, &ben).await;
    let messages = (0..internal::MOST_MESSAGES).map(|n| saying([&ann, &ben][n % 2], &"x".repeat(1 + n % 3))).collect();
    let outcomes = send(&api, direct, messages).await;
    let seqs: Vec<u64> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Sent(sent) => sent.seq,
            Outcome::Refused(problem) => panic!("{problem:?}"),
        })
        .collect();
    assert_eq!(seqs, (2..2 + seqs.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn each_message_has_its_own_outcome_and_leaves_no_trace_of_the_call() {
    let api = Api::new().await;
    let [ann, ben, eve] = api.users(["ann", "ben", "eve"]).await;
    let direct = api.direct(&ann, &ben).await;
    api.delete("/v1/sessions/current", &ben).await.is(204);
    let outcomes =
        send(&api, direct, vec![saying(&ann, "a"), saying(&eve, "b"), saying(&ben, "c"), saying(&ann, "")]).await;
    let statuses: Vec<u16> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Sent(_) => 201,
            Outcome::Refused(problem) => problem.status,
        })
        .collect();
    assert_eq!(statuses, [201, 404, 401, 422]);
    let stored = api.log().await.into_iter().find(|event| event.event_type == "message.sent").unwrap();
    let metadata = serde_json::to_string(&stored.metadata).unwrap();
    assert_eq!(metadata, json!({"session_id": ann.session_id}).to_string(), "but whose session it was");
    api.internal(SEND, SendMessages { conversation_id: direct, messages: vec![] }).await.ok();
    let flood = (0..=internal::MOST_MESSAGES).map(|_| saying(&ann, "a")).collect();
    api.internal(SEND, SendMessages { conversation_id: direct, messages: flood }).await.is(422);
}

#[tokio::test]
async fn watermarks_are_advanced_at_once_or_soon() {
    let api = Api::new().await;
    let [ann, ben] = api.users(["ann", "ben"]).await;
    let direct = api.direct(&ann, &ben).await;
    let last = [api.say(&ann, direct).await, api.say(&ann, direct).await][1];
    let advance = |seq| Advance {
        caller: caller(&ben),
        conversation_id: direct,
        receipt: AdvanceReceipt { delivered_to: Some(seq), read_to: None },
    };
    api.internal(ADVANCE, advance(last)).await.is(204);
    api.internal(ADVANCE, advance(last + 1)).await.is(422);
    let moved = |account: &Account| internal::ReceiptMove {
        conversation_id: direct,
        user_id: account.user_id,
        device_id: account.device_id,
        delivered_to: None,
        read_to: Some(last),
    };
    let answer = api.internal(TAKE_RECEIPTS, TakeReceipts { moves: vec![moved(&ann), moved(&ben)] }).await.ok();
    assert_eq!(serde_json::from_value::<ReceiptsTaken>(answer.body).unwrap().taken, 2);
    api.service.drain().await;
    assert_eq!(api.events("message.read").await, 2);
    assert_eq!(api.events("message.delivered").await, 1);
}

#[tokio::test]
async fn tells_how_far_it_has_got() {
    let api = Api::new().await;
    let [ann, ben] = api.users(["ann", "ben"]).await;
    let direct = api.direct(&ann, &ben).await;
    let seq = api.say(&ann, direct).await;
    let asked = Conversations { conversation_ids: vec![direct, Uuid::now_v7()] };
    let heads: Heads = serde_json::from_value(api.internal(HEADS, asked).await.ok().body).unwrap();
    assert_eq!(heads.heads, [(direct, seq)].into());
    let positions: Positions = serde_json::from_value(api.internal(POSITIONS, json!({})).await.ok().body).unwrap();
    assert_eq!(positions.positions, api.service.positions().await.unwrap());
    let flood = Conversations { conversation_ids: vec![direct; internal::MOST_CONVERSATIONS + 1] };
    api.internal(HEADS, flood).await.is(422);
}

#[tokio::test]
async fn a_reading_of_the_audit_is_taken_down_for_operators_alone() {
    let api = Api::new().await;
    let ann = api.user("ann").await;
    let filters = AuditFilters { event_type: Some("user.registered".to_owned()), ..AuditFilters::default() };
    let reading = || internal::ReadAudit {
        caller: caller(&ann),
        correlation_id: Some("looking".to_owned()),
        filters: filters.clone(),
    };
    api.internal(READ_AUDIT, reading()).await.is(403);
    crate::set_role(api.service.store(), ann.user_id, Role::Operator, true).await.unwrap();
    let taken: AuditReading = serde_json::from_value(api.internal(READ_AUDIT, reading()).await.ok().body).unwrap();
    let read = api.log().await.into_iter().find(|event| event.event_type == "user.audit_read").unwrap();
    assert_eq!((read.key, taken.position.places()[0].position), (ann.user_id, read.position));
    let context = read.metadata.unwrap();
    assert_eq!((context.correlation_id.as_deref(), context.session_id), (Some("looking"), Some(ann.session_id)));
    crate::set_role(api.service.store(), ann.user_id, Role::Operator, false).await.unwrap();
    api.internal(READ_AUDIT, reading()).await.is(403);
    assert_eq!(api.events("user.audit_read").await, 1);
}
