//! Errors as `application/problem+json` (RFC 9457): the one way in which a request is refused.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write as _;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use schemas::rest::FieldError;

use super::{RequestContext, TraceId};

/// The kinds of problem; each has a page at its `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// 400
    BadRequest,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 409
    Conflict,
    /// 413
    PayloadTooLarge,
    /// 415
    UnsupportedMediaType,
    /// 422
    Invalid,
    /// 429
    RateLimited,
    /// 503
    Unavailable,
}

impl ProblemKind {
    /// All of them, by status.
    pub const ALL: [Self; 11] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::Invalid,
        Self::RateLimited,
        Self::Unavailable,
    ];

    /// The `type`: a URI reference, stable, with a page of documentation.
    pub fn uri(self) -> &'static str {
        self.parts().0
    }

    /// The `title`.
    pub fn title(self) -> &'static str {
        self.parts().1
    }

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        self.parts().2
    }

    /// Whether the same request may succeed later.
    pub fn retryable(self) -> bool {
        matches!(self, Self::RateLimited | Self::Unavailable)
    }

    /// The page of documentation, in Markdown.
    pub fn page(self) -> &'static str {
        self.parts().3
    }

    fn parts(self) -> (&'static str, &'static str, StatusCode, &'static str) {
        macro_rules! parts {
            ($name:literal, $title:literal, $status:ident) => {
                (
                    concat!("/problems/", $name),
                    $title,
                    StatusCode::$status,
                    include_str!(concat!("../../../docs/problems/", $name, ".md")),
                )
            };
        }
        match self {
            Self::BadRequest => parts!("bad-request", "The request is malformed", BAD_REQUEST),
            Self::Unauthorized => parts!("unauthorized", "No valid credentials", UNAUTHORIZED),
            Self::Forbidden => parts!("forbidden", "Not allowed", FORBIDDEN),
            Self::NotFound => parts!("not-found", "Not found", NOT_FOUND),
            Self::MethodNotAllowed => parts!("method-not-allowed", "Method not allowed", METHOD_NOT_ALLOWED),
            Self::Conflict => parts!("conflict", "Conflict", CONFLICT),
            Self::PayloadTooLarge => parts!("payload-too-large", "The body is too large", PAYLOAD_TOO_LARGE),
            Self::UnsupportedMediaType => {
                parts!("unsupported-media-type", "The content type is missing or wrong", UNSUPPORTED_MEDIA_TYPE)
            }
            Self::Invalid => parts!("invalid", "A value was refused", UNPROCESSABLE_ENTITY),
            Self::RateLimited => parts!("rate-limited", "Too many requests", TOO_MANY_REQUESTS),
            Self::Unavailable => parts!("unavailable", "Temporarily unavailable", SERVICE_UNAVAILABLE),
        }
    }
}

/// Why a request is refused. Never carries content, tokens or passwords.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    kind: ProblemKind,
    detail: Cow<'static, str>,
    retry_after_s: Option<u64>,
    errors: Vec<FieldError>,
    allow: Option<&'static str>,
}

impl Problem {
    fn new(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), retry_after_s: None, errors: Vec::new(), allow: None }
    }

    /// 400: malformed.
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ProblemKind::BadRequest, detail)
    }

    /// 401: no, bad, expired or revoked token; the same whichever it is.
    pub fn unauthorized() -> Self {
        Self::new(ProblemKind::Unauthorized, "a valid access token is needed: `Authorization: Bearer …`")
    }

    /// 401: other credentials than an access token.
    pub fn unauthorized_because(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ProblemKind::Unauthorized, detail)
    }

    /// 403: known, but not allowed.
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ProblemKind::Forbidden, detail)
    }

    /// 404: unknown, or not visible to the caller; the same whichever it is.
    pub fn not_found() -> Self {
        Self::new(ProblemKind::NotFound, "there is nothing here that you may see")
    }

    /// 405, with what is allowed.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::new(ProblemKind::MethodNotAllowed, format!("allowed here: {allow}")) }
    }

    /// 409: taken, or a state that forbids it.
    pub fn conflict(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ProblemKind::Conflict, detail)
    }

    /// 413: the body is over the limit.
    pub fn payload_too_large() -> Self {
        Self::new(ProblemKind::PayloadTooLarge, format!("a body has at most {} bytes", super::MAX_BODY_BYTES))
    }

    /// 415: not JSON.
    pub fn unsupported_media_type() -> Self {
        Self::new(ProblemKind::UnsupportedMediaType, "send `Content-Type: application/json`")
    }

    /// 422, with what is wrong.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let mut detail = String::new();
        for error in &errors {
            let place = error.pointer.as_ref().or(error.parameter.as_ref()).map_or("", String::as_str);
            let separator = if detail.is_empty() { "" } else { "; " };
            let _ = write!(detail, "{separator}{place}: {}", error.detail);
        }
        Self { errors, ..Self::new(ProblemKind::Invalid, detail) }
    }

    /// 422 at one place of the body, by its JSON pointer.
    pub fn invalid_at(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError { pointer: Some(pointer.into()), parameter: None, detail: detail.into() }])
    }

    /// 422 for a query parameter or header.
    pub fn invalid_parameter(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError { pointer: None, parameter: Some(name.into()), detail: detail.into() }])
    }

    /// 429, with when to try again.
    pub fn rate_limited(retry_after_s: u64) -> Self {
        let retry_after_s = retry_after_s.max(1);
        let detail = format!("try again in {retry_after_s} s");
        Self { retry_after_s: Some(retry_after_s), ..Self::new(ProblemKind::RateLimited, detail) }
    }

    /// 503: a dependency is away, or load is shed.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { retry_after_s: Some(1), ..Self::new(ProblemKind::Unavailable, detail) }
    }

    /// Which kind it is.
    pub fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// What was wrong this time.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What was wrong with which part of the input.
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// The body, as clients get it.
    pub fn to_body(&self, trace_id: TraceId) -> schemas::rest::Problem {
        schemas::rest::Problem {
            kind: self.kind.uri().to_owned(),
            title: self.kind.title().to_owned(),
            status: self.status().as_u16(),
            detail: self.detail.clone().into_owned(),
            retryable: self.kind.retryable(),
            trace_id: trace_id.to_string(),
            retry_after_s: self.retry_after_s,
            errors: self.errors.clone(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let trace_id = RequestContext::current().map_or_else(TraceId::random, |context| context.trace_id);
        let body = serde_json::to_vec(&self.to_body(trace_id)).unwrap_or_default();
        let mut response = (self.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if self.kind == ProblemKind::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Logs the whole chain once, here; the client only learns that it may try again.
impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        let chain = match &error {
            // Its message may quote values.
            sqlx::Error::Database(refused) => {
                format!("SQLSTATE {} {}", refused.code().unwrap_or_default(), refused.constraint().unwrap_or_default())
            }
            _ => chain(&error),
        };
        tracing::warn!(error = chain, "the database is not available: {chain}");
        Self::unavailable("the database is not available")
    }
}

/// An error and its sources in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_page_that_names_it() {
        for kind in ProblemKind::ALL {
            let heading = format!("# {} ({})", kind.title(), kind.status().as_u16());
            assert!(kind.page().starts_with(&heading), "{heading}");
        }
    }

    #[test]
    fn retries_are_timed() {
        let response = Problem::rate_limited(0).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let response = Problem::from(sqlx::Error::PoolTimedOut).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
