//! What can go wrong with a call or a session, and whether trying again helps.

use std::time::Duration;

use schemas::rest::Problem;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server refused, and says why.
    #[error("refused with {}: {}", .0.status, .0.detail)]
    Refused(Box<Problem>),
    /// The session is over: it expired, was logged out or revoked. Log in again.
    #[error("the session is over, log in again")]
    LoggedOut,
    /// The address of the server cannot be used.
    #[error("bad server address {address:?}: {reason}")]
    Address {
        /// The address as given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The request or its answer was lost; whether it took effect is not known.
    #[error("the request or its answer was lost")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server answered something that the contract does not know.
    #[error("the server answered what the contract does not know: {0}")]
    Unexpected(String),
    /// The outbox' store failed; the message was not queued.
    #[error("the store of the outbox failed")]
    Store(#[source] std::io::Error),
    /// A message of this id is on its way already.
    #[error("a message of this id is on its way already")]
    AlreadyQueued,
    /// The session was closed before the server answered.
    #[error("the session was closed before the server answered")]
    Closed,
}

impl Error {
    /// What the server said, if it was the server that refused.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }

    /// The HTTP status of the refusal, if the server refused.
    pub fn status(&self) -> Option<u16> {
        self.problem().map(|problem| problem.status)
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(problem) => problem.retryable,
            Self::Transport(_) => true,
            _ => false,
        }
    }

    /// How long the server wants us to wait before trying again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.problem().and_then(|problem| problem.retry_after_s).map(Duration::from_secs)
    }
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        // The address may carry a query that is nobody's business.
        Self::Transport(error.without_url().into())
    }
}
