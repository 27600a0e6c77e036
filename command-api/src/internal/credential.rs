//! What a process of this installation proves itself by.

use axum::extract::FromRequestParts;
use http::header;
use http::request::Parts;
use platform::http::Problem;

use crate::service::Service;

/// The request comes from a process of this installation. To others there is nothing here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Colleague;

impl FromRequestParts<Service> for Colleague {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, Problem> {
        let given =
            parts.headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let known = given.is_some_and(|token| service.authenticator().keyring().is_internal_token(token));
        if known { Ok(Self) } else { Err(Problem::not_found()) }
    }
}
