//! JSON bodies: what is malformed is told apart from what is refused, and refusals say where.

use std::fmt::Write as _;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_path_to_error::Segment;

use super::Problem;

/// A JSON body, in a request or an answer.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::unsupported_media_type());
        }
        let body = Bytes::from_request(request, state).await.map_err(|rejection| match rejection {
            BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => Problem::payload_too_large(),
            _ => Problem::bad_request("the body was cut off"),
        })?;
        parse(&body).map(Self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    essence.is_some_and(|essence| {
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
    })
}

/// Reads a body: 400 where it is malformed, 422 with a pointer where it is not an object of this type.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // Checked as a whole: what a type ignores is malformed all the same.
    let text = std::str::from_utf8(body).map_err(|_| malformed("not UTF-8"))?;
    if text.contains("\\ud") || text.contains("\\uD") {
        serde_json::from_str::<serde_json::Value>(text).map_err(|error| syntax(&error))?;
    }
    if !text.trim_ascii_start().starts_with('{') {
        // serde takes a list for a struct.
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| syntax(&error))?;
        return Err(Problem::invalid_at("", "expected an object"));
    }
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        Err(error) if !error.is_data() => Err(syntax(&error)),
        Err(_) => Err(refused::<T>(text)),
    }
}

fn syntax(error: &serde_json::Error) -> Problem {
    malformed(&format!("at line {}, column {}", error.line(), error.column()))
}

fn malformed(place: &str) -> Problem {
    Problem::bad_request(format!("the body is not JSON: {place}"))
}

/// Reads it again to know where it does not fit.
fn refused<T: DeserializeOwned>(text: &str) -> Problem {
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return syntax(&error);
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Ok(_) => malformed("something follows it"),
        Err(error) => {
            let message = error.inner().to_string();
            let mut pointer = String::new();
            for segment in error.path() {
                match segment {
                    Segment::Seq { index } => drop(write!(pointer, "/{index}")),
                    Segment::Map { key } => push(&mut pointer, key),
                    Segment::Enum { .. } | Segment::Unknown => {}
                }
            }
            if let Some(field) = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
                push(&mut pointer, field);
            }
            Problem::invalid_at(pointer, explain(&message))
        }
    }
}

fn push(pointer: &mut String, key: &str) {
    let _ = write!(pointer, "/{}", key.replace('~', "~0").replace('/', "~1"));
}

/// What would be right, in serde's words, without the value that was given: it may be a secret.
fn explain(message: &str) -> String {
    if message.starts_with("missing field") {
        return "is required".to_owned();
    }
    if message.starts_with("duplicate field") {
        return "is given twice".to_owned();
    }
    if message.starts_with("UUID parsing failed") {
        return "expected a UUID".to_owned();
    }
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    match message.rsplit_once(", expected ") {
        Some((_, expected)) => format!("expected {expected}"),
        None => "is not acceptable".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde::Deserialize;
    use uuid::Uuid;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read")]
    struct Body {
        name: String,
        #[serde(default)]
        ids: Vec<Uuid>,
        #[serde(default)]
        note: Option<String>,
    }

    fn status(body: &[u8]) -> StatusCode {
        parse::<Body>(body).map_or_else(|problem| problem.status(), |_| StatusCode::OK)
    }

    fn refusal(body: &str) -> (String, String) {
        let problem = parse::<Body>(body.as_bytes()).unwrap_err();
        assert_eq!(problem.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let error = problem.errors()[0].clone();
        (error.pointer.unwrap(), error.detail)
    }

    #[test]
    fn malformed_is_told_apart_from_refused() {
        for body in [
            &b""[..],
            b"{",
            b"nope",
            br#"{"name":"x"} {}"#,
            b"{\"name\":\"\xff\"}",
            b"{\"name\":\"x\",\"other\":\"\xff\"}",
            br#"{"name":"\ud800"}"#,
            br#"{"name":"x","other":"\udc00"}"#,
            br#"{"name":7,"other":}"#,
        ] {
            assert_eq!(status(body), StatusCode::BAD_REQUEST, "{}", String::from_utf8_lossy(body));
        }
        assert_eq!(status(br#"{"name":"\ud83d\ude00"}"#), StatusCode::OK);
    }

    #[test]
    fn unknown_fields_are_ignored_and_null_is_absent() {
        assert_eq!(status(br#"{"name":"x","note":null,"other":{"deep":[1]}}"#), StatusCode::OK);
    }

    #[test]
    fn refusals_point_to_the_place_and_say_what_is_right() {
        let at = |pointer: &str, detail: &str| (pointer.to_owned(), detail.to_owned());
        assert_eq!(refusal("{}"), at("/name", "is required"));
        assert_eq!(refusal(r#"["x"]"#), at("", "expected an object"));
        assert_eq!(refusal(r#"{"name":null}"#), at("/name", "expected a string"));
        assert_eq!(refusal(r#"{"name":"x","ids":["zz"]}"#), at("/ids/0", "expected a UUID"));
    }

    #[test]
    fn refusals_do_not_repeat_what_was_given() {
        let (_, detail) = refusal(r#"{"name":123456}"#);
        assert_eq!(detail, "expected a string");
    }
}
