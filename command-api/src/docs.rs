//! What routes have in common in the OpenAPI document.

use schemas::rest::Problem;
use utoipa::IntoResponses;

/// What may be wrong with any body.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "its variants are documentation")]
pub(crate) enum BodyProblems {
    /// Malformed JSON
    #[response(status = 400, content_type = "application/problem+json")]
    Malformed(Problem),
    /// Over 128 KiB
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// Not JSON
    #[response(status = 415, content_type = "application/problem+json")]
    NotJson(Problem),
    /// A value was refused; `errors` has a pointer to each
    #[response(status = 422, content_type = "application/problem+json")]
    Refused(Problem),
}

/// What may happen to any command of one who is logged in.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "its variants are documentation")]
pub(crate) enum CallerProblems {
    /// No, bad, expired or revoked token
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(Problem),
    /// A dependency is away, or load is shed
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

/// What may be in the way in a conversation.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "its variants are documentation")]
pub(crate) enum ConversationProblems {
    /// The role does not allow it, or no longer a member
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// Unknown, or never a member
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// A state that forbids it
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
}
