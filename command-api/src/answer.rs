//! Answers that say where their effect stands in the log: in the header `Position`, and in the body where it has one.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode};
use platform::http::Json;
use schemas::PositionToken;
use serde::Serialize;

const POSITION: HeaderName = HeaderName::from_static("position");

/// A status, and what a command answers.
pub(crate) struct Answer<T> {
    pub(crate) status: StatusCode,
    pub(crate) position: PositionToken,
    pub(crate) body: T,
}

impl<T> Answer<T> {
    /// 201 for what was made now, 200 for what was there.
    pub(crate) fn made(fresh: bool, position: PositionToken, body: T) -> Self {
        Self { status: if fresh { StatusCode::CREATED } else { StatusCode::OK }, position, body }
    }

    pub(crate) fn ok(position: PositionToken, body: T) -> Self {
        Self { status: StatusCode::OK, position, body }
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        (self.status, positioned(&self.position), Json(self.body)).into_response()
    }
}

/// The header `Position`.
pub(crate) fn positioned(position: &PositionToken) -> [(HeaderName, HeaderValue); 1] {
    let value = HeaderValue::from_str(&position.to_string()).expect("positions are letters, digits and dots");
    [(POSITION, value)]
}
