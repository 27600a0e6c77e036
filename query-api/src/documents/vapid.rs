//! `GET /v1/push/vapid-public-key`

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use platform::http::Json;
use schemas::rest::VapidPublicKey;

use crate::state::QueryState;

/// What browsers subscribe to push with (RFC 8292); the same for as long as the installation lasts.
#[utoipa::path(get, path = "/v1/push/vapid-public-key", tag = "about", operation_id = "getVapidPublicKey",
    responses((status = 200, body = VapidPublicKey)))]
pub(super) async fn vapid_public_key(State(state): State<QueryState>) -> Response {
    let public_key = state.authenticator().keyring().push().public();
    ([(CACHE_CONTROL, "public, max-age=300")], Json(VapidPublicKey { public_key })).into_response()
}
