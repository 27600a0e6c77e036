//! What stands around every route: context, trace, metrics, bounds; and problems where no route answers.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tracing::Instrument;

use super::surface::{self, Entry};
use super::{Path, Problem, ProblemKind, RequestContext};
use crate::traces::Span;

/// The largest request body, in bytes.
pub const MAX_BODY_BYTES: usize = 128 * 1024;
/// The longest a request may take; what waits for a database gives up well before.
const LONGEST_REQUEST: Duration = Duration::from_secs(20);

/// Hangs routes in the frame. Whatever they do, every answer carries its request's id and trace, and none is a 500.
///
/// Routes must be part of [`surface::SURFACE`], which answers for unknown paths and wrong methods, or of what processes of
/// one installation ask each other ([`crate::internal`]), which has the same bounds.
pub fn frame(router: Router) -> Router {
    router
        .route("/problems/{name}", routing::get(problem_page))
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async { Problem::not_found() })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(around))
}

async fn around(request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let path = request.uri().path();
    let entry = surface::find(path).or_else(|| surface::find_internal(path, request.method().as_str()));
    let route = entry.map_or("", |entry| entry.pattern);
    let method = method_label(request.method());
    // Who probes or asks for figures does so all the time: nothing worth a trace begins there.
    let (asked, context, mut traced) = RequestContext::begin(request.headers(), route.starts_with("/v1/"));
    let span = tracing::info_span!(
        "request",
        trace_id = %context.trace_id,
        request_id = context.correlation_id.as_deref(),
        method,
        route,
    );
    let work = context.scope(answer(entry, request, next).instrument(span));
    let mut response = work.await;

    if let Some(traced) = &mut traced {
        describe(traced, method, route, response.status());
    }
    asked.mark(response.headers_mut());
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let status = response.status().as_u16().to_string();
    metrics::counter!("parlance_http_requests_total", "method" => method, "route" => route, "status" => status)
        .increment(1);
    metrics::histogram!("parlance_http_request_duration_seconds", "route" => route).record(begin.elapsed());
    response
}

async fn answer(entry: Option<&'static Entry>, request: Request, next: Next) -> Response {
    let Some(entry) = entry else { return Problem::not_found().into_response() };
    if !entry.takes(request.method().as_str()) {
        return Problem::method_not_allowed(entry.allow).into_response();
    }
    if announced_length(request.headers()).is_some_and(|length| length > MAX_BODY_BYTES) {
        return Problem::payload_too_large().into_response();
    }
    let bounded = tokio::time::timeout(LONGEST_REQUEST, next.run(request));
    let response = match AssertUnwindSafe(bounded).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Problem::unavailable("this took too long").into_response(),
        Err(_) => {
            // The panic hook has logged where and why.
            tracing::error!("a handler panicked");
            Problem::unavailable("something failed here, and was logged").into_response()
        }
    };
    tracing::debug!(status = response.status().as_u16(), "answered {}", response.status());
    response
}

/// By OpenTelemetry's names; the path itself is left out, since it may say more than ids.
fn describe(span: &mut Span, method: &'static str, route: &'static str, status: StatusCode) {
    span.rename(format!("{method} {route}").trim_end().to_owned());
    span.set("http.request.method", method);
    span.set("http.route", route);
    span.set("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.fail("the request could not be answered");
    }
}

fn announced_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Labels are bounded: a method of the client's own making is not one.
fn method_label(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

async fn problem_page(Path(name): Path<String>) -> Result<Response, Problem> {
    let kind = ProblemKind::ALL.into_iter().find(|kind| kind.uri().strip_prefix("/problems/") == Some(&name));
    let page = kind.ok_or_else(Problem::not_found)?.page();
    Ok(([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], page).into_response())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;
    use crate::http::Json;

    fn app() -> Router {
        frame(
            Router::new()
                .route("/v1/users", routing::post(|Json(body): Json<Value>| async { Json(body) }))
                .route("/v1/ws-tickets", routing::post(panics))
                .route("/v1/users/me/password", routing::put(std::future::pending::<()>)),
        )
    }

    async fn panics() {
        panic!("of what a test may see");
    }

    async fn ask(request: http::request::Builder, body: impl Into<Body>) -> (http::response::Parts, Value) {
        let response = app().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        (parts, serde_json::from_slice(&body).unwrap_or_default())
    }

    fn post(path: &str) -> http::request::Builder {
        Request::post(path).header("content-type", "application/json")
    }

    #[tokio::test]
    async fn context_comes_back_also_with_problems() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let (parts, body) =
            ask(post("/nowhere").header("x-request-id", "mine").header("traceparent", trace), "{}").await;
        assert_eq!(parts.status, StatusCode::NOT_FOUND);
        assert_eq!(parts.headers["x-request-id"], "mine");
        assert_eq!(parts.headers["traceparent"], trace);
        assert_eq!(parts.headers["content-type"], "application/problem+json");
        assert_eq!(body["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(body["type"], "/problems/not-found");
        assert_eq!(body["status"], 404);
        assert_eq!(body["retryable"], false);
    }

    #[tokio::test]
    async fn a_wrong_method_is_told_the_right_ones() {
        let (parts, _) = ask(Request::put("/v1/users"), "").await;
        assert_eq!(parts.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(parts.headers["allow"], "GET, HEAD, POST");
        // Part of the surface, though not of this process.
        let (parts, _) = ask(Request::get("/v1/users"), "").await;
        assert_eq!(parts.status, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn bodies_are_bounded_whether_announced_or_not() {
        let fits = format!(r#"{{"x":"{}"}}"#, "x".repeat(MAX_BODY_BYTES - 8));
        assert_eq!(ask(post("/v1/users"), fits.clone()).await.0.status, StatusCode::OK);
        let large = format!("{fits} ");
        let announced = post("/v1/users").header("content-length", large.len());
        assert_eq!(ask(announced, large.clone()).await.0.status, StatusCode::PAYLOAD_TOO_LARGE);
        let chunks = futures::stream::iter([Ok::<_, std::io::Error>(large)]);
        assert_eq!(ask(post("/v1/users"), Body::from_stream(chunks)).await.0.status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn only_json_is_taken() {
        assert_eq!(ask(Request::post("/v1/users"), "{}").await.0.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let text = Request::post("/v1/users").header("content-type", "text/plain");
        assert_eq!(ask(text, "{}").await.0.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let cased = Request::post("/v1/users").header("content-type", "Application/JSON; charset=utf-8");
        assert_eq!(ask(cased, "{}").await.0.status, StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_answers_500_and_nothing_hangs() {
        let (parts, body) = ask(post("/v1/ws-tickets"), "{}").await;
        assert_eq!(parts.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["retryable"], true);
        let (parts, _) = ask(Request::put("/v1/users/me/password"), "").await;
        assert_eq!(parts.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(parts.headers["retry-after"], "1");
    }

    #[tokio::test]
    async fn every_problem_type_is_a_page() {
        for kind in ProblemKind::ALL {
            assert_eq!(ask(Request::get(kind.uri()), "").await.0.status, StatusCode::OK, "{}", kind.uri());
        }
        assert_eq!(ask(Request::get("/problems/none"), "").await.0.status, StatusCode::NOT_FOUND);
    }
}
