//! `GET /.well-known/jwks.json`

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use crate::state::QueryState;

/// The public keys that verify access tokens, as a JSON Web Key Set (RFC 7517).
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "about", operation_id = "getKeys",
    responses((status = 200, description = "The key set.", body = serde_json::Value, content_type = "application/jwk-set+json")))]
pub(super) async fn jwks(State(state): State<QueryState>) -> Response {
    let keys = state.authenticator().jwks().to_string();
    ([(CONTENT_TYPE, "application/jwk-set+json"), (CACHE_CONTROL, "public, max-age=300")], keys).into_response()
}
