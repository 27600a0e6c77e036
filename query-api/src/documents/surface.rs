//! One OpenAPI document of all parts of the surface.

use schemas::rest::Problem;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, OpenApi};
use utoipa::{Modify, OpenApi as _};

use super::headers;
use crate::refusals::NotThere;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Parlance",
        description = "Messaging on an event log. Commands change it, queries show it, `/v1/ws` streams it \
            (see `/asyncapi.json`).\n\nErrors are `application/problem+json` (RFC 9457). Besides those that stand with \
            each call, any may answer 405 (with `Allow`), 429 and 503 (both with `Retry-After`), and those with a body \
            413 and 415. Nothing answers 500. HEAD is taken wherever GET is. `X-Request-Id` and `traceparent` are \
            honoured and returned.\n\nCommands answer with the header `Position`; a query that names it in \
            `Min-Position` includes their effect, or says `Position-Stale: true`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(ws, problem_page),
    components(schemas(Problem)),
    modifiers(&Bearer),
    tags(
        (name = "users", description = "Accounts and profiles."),
        (name = "sessions", description = "Logging in, and what it opened."),
        (name = "conversations", description = "Direct ones and groups, their members, and how far each has got."),
        (name = "messages", description = "What was said."),
        (name = "operators", description = "What operators look at."),
        (name = "live", description = "The WebSocket."),
        (name = "about", description = "Keys and descriptions."),
        (name = "operations", description = "Health and figures; not routed out."),
    )
)]
struct Base;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some("An access token: `POST /v1/sessions`."))
            .build();
        let components = openapi.components.get_or_insert_with(Components::new);
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The WebSocket of subprotocol `parlance.v1`; its frames are described in `/asyncapi.json`.
#[utoipa::path(get, path = "/v1/ws", tag = "live", operation_id = "openSocket",
    params(
        ("ticket" = Option<String>, Query, description = "From `POST /v1/ws-tickets`, for browsers; good once."),
        ("Sec-WebSocket-Protocol" = String, Header, example = "parlance.v1"),
        ("Origin" = Option<String>, Header, description = "Where given, one that is allowed.")),
    security(("bearer" = []), ()),
    responses(
        (status = 101, description = "The socket is open; the client begins with `hello`."),
        (status = 400, body = Problem, content_type = "application/problem+json",
            description = "Not an upgrade, or the subprotocol was not offered."),
        (status = 401, body = Problem, content_type = "application/problem+json",
            description = "Neither a good ticket nor a good token."),
        (status = 403, body = Problem, content_type = "application/problem+json",
            description = "An origin that is not allowed.")))]
#[expect(dead_code, reason = "describes what the gateway serves")]
fn ws() {}

/// What a kind of problem means, in Markdown: where a problem's `type` points.
#[utoipa::path(get, path = "/problems/{name}", tag = "about", operation_id = "getProblemKind",
    params(("name" = String, Path, example = "not-found")),
    responses((status = 200, description = "The page.", body = String, content_type = "text/markdown"), NotThere))]
#[expect(dead_code, reason = "describes what the HTTP frame serves")]
fn problem_page() {}

/// The document of the whole surface; parts that know a path each its own methods are put together.
pub fn merged(parts: impl IntoIterator<Item = OpenApi>) -> OpenApi {
    let mut whole = Base::openapi();
    env!("CARGO_PKG_VERSION").clone_into(&mut whole.info.version);
    for part in parts {
        let mut rest = part;
        for (path, item) in std::mem::take(&mut rest.paths.paths) {
            match whole.paths.paths.get_mut(&path) {
                Some(known) => known.merge_operations(item),
                None => {
                    whole.paths.paths.insert(path, item);
                }
            }
        }
        whole.merge(rest);
    }
    headers::describe(&mut whole);
    whole
}
