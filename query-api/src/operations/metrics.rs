//! `GET /metrics`

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;

use super::Operations;

/// The figures of this process, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operations", operation_id = "getMetrics",
    responses((status = 200, description = "The figures.", body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(operations): State<Operations>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (operations.render_metrics)()).into_response()
}
