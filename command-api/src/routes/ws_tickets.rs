//! `POST /v1/ws-tickets`

use axum::extract::State;
use http::StatusCode;
use platform::auth::Caller;
use platform::http::{Json, Problem};
use schemas::rest::Ticket;

use crate::docs::CallerProblems;
use crate::service::Service;

/// A ticket to open a WebSocket with, for those who cannot send a header: good once, for 30 s
#[utoipa::path(
    post, path = "/v1/ws-tickets", tag = "sessions", security(("bearer" = [])),
    responses((status = 201, body = Ticket), CallerProblems),
)]
pub(crate) async fn issue(
    State(service): State<Service>,
    caller: Caller,
) -> Result<(StatusCode, Json<Ticket>), Problem> {
    let ticket = service.inner.parts.tickets.issue(&caller).await?;
    Ok((StatusCode::CREATED, Json(ticket)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::Api;

    #[tokio::test]
    async fn the_ticket_stands_for_this_session() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        let ticket = api.post("/v1/ws-tickets", Some(&ann), Value::Null).await.created();
        assert!(ticket["expires_at"].is_string());
        let redeemed = api.tickets().redeem(ticket["ticket"].as_str().unwrap()).await.unwrap().unwrap();
        assert_eq!(json!(redeemed.session_id), json!(ann.session_id));
    }
}
