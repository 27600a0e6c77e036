//! What was asked of a replica that went meanwhile is asked again of the primary: whoever asked waits a little longer, and
//! that is all.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::StatusCode;

use crate::state::QueryState;

/// Answers, and again where the replica went meanwhile. Queries have no body, and change nothing.
pub(crate) async fn again(State(state): State<QueryState>, request: Request, next: Next) -> Response {
    let Some(left) = state.reads().leaves_replica() else { return next.run(request).await };
    let (parts, body) = request.into_parts();
    let anew = Request::from_parts(parts.clone(), Body::empty());
    let response = tokio::select! {
        response = next.clone().run(Request::from_parts(parts, body)) => response,
        () = left => return next.run(anew).await,
    };
    if response.status() == StatusCode::SERVICE_UNAVAILABLE && !state.reads().replica_answers().await {
        return next.run(anew).await;
    }
    response
}
