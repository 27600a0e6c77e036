//! `GET /openapi.json`, `/asyncapi.json`, `/docs`, `/docs/events`, `/schemas/{event_type}/{version}`

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use platform::http::{Path, Problem};

use crate::refusals::NotThere;
use crate::state::QueryState;

const FRESH: &str = "public, max-age=60";
/// The page holds its style and runs nothing.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

/// The REST surface, in OpenAPI 3.1.
#[utoipa::path(get, path = "/openapi.json", tag = "about", operation_id = "getOpenApi",
    responses((status = 200, description = "The document.", body = serde_json::Value)))]
pub(super) async fn openapi(State(state): State<QueryState>) -> Response {
    json(state.documents().openapi.clone())
}

/// The WebSocket's frames and the event topics, in AsyncAPI 3.
#[utoipa::path(get, path = "/asyncapi.json", tag = "about", operation_id = "getAsyncApi",
    responses((status = 200, description = "The document.", body = serde_json::Value)))]
pub(super) async fn asyncapi(State(state): State<QueryState>) -> Response {
    json(state.documents().asyncapi.clone())
}

/// The REST surface, to read.
#[utoipa::path(get, path = "/docs", tag = "about", operation_id = "getDocs",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")))]
pub(super) async fn docs(State(state): State<QueryState>) -> Response {
    page(state.documents().page.clone())
}

/// The event topics, to read.
#[utoipa::path(get, path = "/docs/events", tag = "about", operation_id = "getEventDocs",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")))]
pub(super) async fn event_docs(State(state): State<QueryState>) -> Response {
    page(state.documents().events.clone())
}

/// The JSON Schema of an event's data, where `ce_dataschema` points.
#[utoipa::path(get, path = "/schemas/{event_type}/{version}", tag = "about", operation_id = "getEventSchema",
    params(("event_type" = String, Path, example = "message.sent"), ("version" = String, Path, example = "1.json")),
    responses(
        (status = 200, description = "The schema.", body = serde_json::Value, content_type = "application/schema+json"),
        NotThere))]
pub(super) async fn event_schema(Path((event_type, version)): Path<(String, String)>) -> Result<Response, Problem> {
    let version = version.strip_suffix(".json").ok_or_else(Problem::not_found)?;
    let document = schemas::catalogue::schema_document(&event_type, version).ok_or_else(Problem::not_found)?;
    let headers = [(CONTENT_TYPE, "application/schema+json"), (CACHE_CONTROL, FRESH)];
    Ok((headers, document).into_response())
}

fn page(body: axum::body::Bytes) -> Response {
    let headers =
        [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, PAGE_POLICY), (CACHE_CONTROL, FRESH)];
    (headers, body).into_response()
}

fn json(body: axum::body::Bytes) -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, FRESH)], body).into_response()
}
