//! What holds for all commands, and between processes on one database.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use serde_json::json;
use testkit::eventually;
use uuid::Uuid;

use crate::testing::Api;

#[tokio::test]
async fn what_one_process_gives_out_is_good_at_another() {
    let here = Api::new().await;
    let there = here.beside().await;
    let ann = here.user("ann").await;
    there.patch("/v1/users/me", &ann, json!({"display_name": "Ann"})).await.ok();
    let ticket = here.post("/v1/ws-tickets", Some(&ann), json!(null)).await.created();
    let ticket = ticket["ticket"].as_str().unwrap();
    assert_eq!(there.tickets().redeem(ticket).await.unwrap().unwrap().session_id, ann.session_id);
    assert!(here.tickets().redeem(ticket).await.unwrap().is_none());
    there.refresh(&ann).await.ok();
    // Replayed where it was not exchanged.
    here.refresh(&ann).await.ok();
}

#[tokio::test]
async fn a_log_out_here_is_known_there_within_a_second() {
    let here = Api::new().await;
    let there = here.beside().await;
    let ann = here.user("ann").await;
    there.patch("/v1/users/me", &ann, json!({})).await.ok();
    here.delete("/v1/sessions/current", &ann).await.is(204);
    let refused = async || there.patch("/v1/users/me", &ann, json!({})).await.status == 401;
    eventually("the token is refused there", Duration::from_secs(1), refused).await;
}

#[tokio::test]
async fn names_pairs_and_messages_are_unique_over_processes() {
    let here = Api::new().await;
    let there = here.beside().await;
    let register = |api| {
        let body = json!({"username": "eve", "email": format!("{}@x", Uuid::now_v7()), "password": "correct horse"});
        Api::post(api, "/v1/users", None, body)
    };
    let (one, other) = tokio::join!(register(&here), register(&there));
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);

    let [ann, ben] = here.users(["ann", "ben"]).await;
    let (one, other) = tokio::join!(here.direct(&ann, &ben), there.direct(&ben, &ann));
    assert_eq!(one, other);

    let path = format!("/v1/conversations/{one}/messages");
    for _ in 0..5 {
        let message = json!({"message_id": Uuid::now_v7(), "content": "hi"});
        let send = |api| Api::post(api, &path, Some(&ann), message.clone());
        let (one, other) = tokio::join!(send(&here), send(&there));
        let mut statuses = [one.status.as_u16(), other.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 201]);
        assert_eq!(one.body, other.body);
    }
}

#[tokio::test]
async fn a_removed_member_cannot_slip_a_message_in_elsewhere() {
    let here = Api::new().await;
    let there = here.beside().await;
    let [ann, ben] = here.users(["ann", "ben"]).await;
    let group = here.group(&ann, &[&ben]).await;
    there.say(&ben, group).await;
    here.delete(&format!("/v1/conversations/{group}/members/{}", ben.user_id), &ann).await.ok();
    let message = json!({"message_id": Uuid::now_v7(), "content": "hi"});
    there.post(&format!("/v1/conversations/{group}/messages"), Some(&ben), message).await.is(403);
}

#[tokio::test]
async fn the_gateway_is_told_what_is_committed() {
    let api = Api::new().await;
    let [ann, ben] = api.users(["ann", "ben"]).await;
    let direct = api.direct(&ann, &ben).await;
    let seq = api.say(&ann, direct).await;
    let heads = api.service.heads(&[direct, Uuid::now_v7()]).await.unwrap();
    assert_eq!(heads.into_iter().collect::<Vec<_>>(), [(direct, seq)]);
    let positions = api.service.positions().await.unwrap();
    assert_eq!(positions.iter().map(|place| place.position).sum::<u64>(), seq);
    assert!(positions.iter().all(|place| place.topic == schemas::Topic::Conversations));
}

#[tokio::test]
async fn the_context_of_a_request_stands_with_its_events() {
    let api = Api::new().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let body = json!({"username": "ann", "email": "ann@example.org", "password": "correct horse"});
    let request = Request::post("/v1/users")
        .header("content-type", "application/json")
        .header("x-request-id", "order-7")
        .header("traceparent", trace)
        .body(Body::from(body.to_string()))
        .unwrap();
    let answer = api.ask(request).await.created();
    assert_eq!((answer.header("x-request-id"), answer.header("traceparent")), (Some("order-7"), Some(trace)));
    let events = api.log().await;
    let context = events[0].metadata.as_deref().unwrap();
    assert_eq!((context.correlation_id.as_deref(), context.traceparent.as_deref()), (Some("order-7"), Some(trace)));
}

#[tokio::test]
async fn without_a_database_all_may_be_tried_again() {
    let api = Api::new().await;
    let [ann, ben] = api.users(["ann", "ben"]).await;
    let group = api.group(&ann, &[&ben]).await;
    let name: String = sqlx::query_scalar("SELECT current_database()").fetch_one(api.pool()).await.unwrap();
    let admin = sqlx::PgPool::connect_with((*api.pool().connect_options()).clone().database("postgres")).await.unwrap();
    let drop = sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
    sqlx::query(drop).execute(&admin).await.unwrap();

    let message = json!({"message_id": Uuid::now_v7(), "content": "hi"});
    let log_in = json!({"login": "ann", "password": "correct horse"});
    for answer in [
        api.post(&format!("/v1/conversations/{group}/messages"), Some(&ann), message).await,
        api.post("/v1/sessions", None, log_in).await,
        api.refresh(&ann).await,
        api.post("/v1/ws-tickets", Some(&ann), json!(null)).await,
        api.delete("/v1/sessions/current", &ann).await,
        api.patch("/v1/users/me", &ann, json!({"display_name": "Ann"})).await,
        api.post("/v1/conversations", Some(&ann), json!({"type": "group", "member_ids": [ben.user_id]})).await,
    ] {
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer["retryable"], true);
    }
}
