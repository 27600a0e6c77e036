//! How far conversations and shards have got.

use axum::extract::State;
use platform::http::{Json, Problem};
use platform::internal::{Conversations, Heads, MOST_CONVERSATIONS, Positions};

use super::credential::Colleague;
use crate::service::Service;

/// `POST /internal/v1/heads`
pub(super) async fn heads(
    _: Colleague,
    State(service): State<Service>,
    Json(asked): Json<Conversations>,
) -> Result<Json<Heads>, Problem> {
    if asked.conversation_ids.len() > MOST_CONVERSATIONS {
        return Err(Problem::invalid_at("/conversation_ids", "too many at once"));
    }
    Ok(Json(Heads { heads: service.heads(&asked.conversation_ids).await? }))
}

/// `POST /internal/v1/positions`
pub(super) async fn positions(_: Colleague, State(service): State<Service>) -> Result<Json<Positions>, Problem> {
    Ok(Json(Positions { positions: service.positions().await? }))
}
