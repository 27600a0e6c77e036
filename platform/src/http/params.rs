//! What stands in the path and in the query.

use axum::extract::{FromRequestParts, Query as AxumQuery};
use http::request::Parts;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use std::error::Error as _;
use uuid::Uuid;

use super::Problem;

/// Query parameters; a bad one is refused by its name.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match AxumQuery::try_from_uri(&parts.uri) {
            Ok(AxumQuery(value)) => Ok(Self(value)),
            Err(rejection) => {
                // "limit: invalid digit found in string"; "missing field `q`"
                let message = rejection.source().map(ToString::to_string).unwrap_or_default();
                let quoted = message.split('`').nth(1);
                let (name, detail) = if message.contains("missing field") {
                    (quoted, "is required")
                } else if message.contains("duplicate field") {
                    (quoted, "is given twice")
                } else {
                    (message.split(": ").next(), "is not acceptable")
                };
                Err(Problem::invalid_parameter(name.unwrap_or_default(), detail))
            }
        }
    }
}

/// Path parameters; a bad one answers as an unknown one does.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => Err(Problem::not_found()),
        }
    }
}

/// One id in the path: a UUID with hyphens. Alone it is an extractor; of several, `Path<(PathId, PathId)>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathId(pub Uuid);

impl PathId {
    /// The id that this text is, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        // Without hyphens, in braces and as a URN it would be another name of the same thing.
        (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten().map(Self)
    }
}

impl<'de> Deserialize<'de> for PathId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("expected a UUID"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Path::from_request_parts(parts, state).await.map(|Path(id)| id)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use http::{Request, StatusCode};
    use tower::ServiceExt;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read")]
    struct Paged {
        #[serde(default)]
        limit: Option<u16>,
        q: String,
    }

    async fn answer(uri: &str) -> (StatusCode, serde_json::Value) {
        let app: Router = Router::new()
            .route("/q", get(|_: Query<Paged>| async {}))
            .route("/one/{id}", get(|_: PathId| async {}))
            .route("/two/{id}/{other}", get(|_: Path<(PathId, PathId)>| async {}));
        let response = app.oneshot(Request::get(uri).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn a_bad_parameter_is_named() {
        assert_eq!(answer("/q?q=x&limit=7").await.0, StatusCode::OK);
        for (uri, name) in
            [("/q?q=x&limit=many", "limit"), ("/q?limit=1", "q"), ("/q?q=x&limit=-1", "limit"), ("/q?q=x&q=y", "q")]
        {
            let (status, body) = answer(uri).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{uri}");
            assert_eq!(body["errors"][0]["parameter"], name, "{uri}: {body}");
        }
    }

    #[tokio::test]
    async fn a_bad_id_answers_as_an_unknown_one() {
        let id = Uuid::from_u128(7);
        assert_eq!(answer(&format!("/one/{id}")).await.0, StatusCode::OK);
        assert_eq!(answer(&format!("/two/{id}/{id}")).await.0, StatusCode::OK);
        for bad in ["zz", "00000000000000000000000000000007", "%ff", "%7B00000000-0000-0000-0000-000000000007%7D"] {
            assert_eq!(answer(&format!("/one/{bad}")).await.0, StatusCode::NOT_FOUND, "{bad}");
            assert_eq!(answer(&format!("/two/{id}/{bad}")).await.0, StatusCode::NOT_FOUND, "{bad}");
        }
    }
}
