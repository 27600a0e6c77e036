//! Sessions: from log-in over refreshes to log-out.

pub(crate) mod log_in;
pub(crate) mod log_out_everywhere;
pub(crate) mod log_out_here;
pub(crate) mod log_out_there;
pub(crate) mod refresh;

use axum::response::{IntoResponse, Response};
use domain::session::RevokeReason;
use http::StatusCode;
use platform::http::{Problem, RequestContext};
use schemas::PositionToken;
use schemas::rest::SessionTokens;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::answer::positioned;
use crate::commands::{DEVICES, LiveSession, RevokeSessions};
use crate::execute::token;
use crate::refresh_token::RefreshToken;
use crate::service::Service;

/// 204, and where the end of the sessions stands in the log.
pub(crate) fn logged_out(position: &PositionToken) -> Response {
    (StatusCode::NO_CONTENT, positioned(position)).into_response()
}

/// Sessions that are ended in one command.
const AT_ONCE: u32 = 1_000;

impl Service {
    /// The sessions that live on a user's devices; at most a thousand, the rest once these have ended.
    pub(crate) async fn live_sessions(&self, user_id: Uuid) -> Result<Vec<LiveSession>, Problem> {
        let prefix = format!("{user_id}:");
        let found = self.store().log().lookup_prefix(DEVICES, &prefix, AT_ONCE).await?;
        let live = found.into_iter().map(|(key, session_id)| LiveSession {
            session_id,
            device_id: key.strip_prefix(&prefix).and_then(|device| device.parse().ok()),
        });
        Ok(live.collect())
    }

    /// Ends sessions: their access tokens first, so that whatever fails afterwards, they are refused.
    pub(crate) async fn end_sessions(
        &self,
        user_id: Uuid,
        sessions: Vec<LiveSession>,
        reason: RevokeReason,
        context: &RequestContext,
    ) -> Result<PositionToken, Problem> {
        self.refuse_tokens(&sessions).await?;
        let executed = self.execute(RevokeSessions { user_id, sessions, reason }, context).await?;
        Ok(token(executed.position))
    }

    /// Refuses the access tokens of sessions that live.
    pub(crate) async fn refuse_tokens(&self, sessions: &[LiveSession]) -> Result<(), Problem> {
        let ids: Vec<Uuid> = sessions.iter().map(|session| session.session_id).collect();
        Ok(self.authenticator().revocations().revoke(&ids).await?)
    }

    /// What a client gets at log-in and refresh.
    pub(crate) fn tokens(
        &self,
        refresh: RefreshToken,
        device_id: Uuid,
        refresh_expires_at: OffsetDateTime,
    ) -> SessionTokens {
        let RefreshToken { user_id, session_id, .. } = refresh;
        let (access_token, access_expires_at) = self.authenticator().issue(user_id, session_id, device_id);
        SessionTokens {
            access_token,
            access_expires_at,
            refresh_token: refresh.text(self.authenticator().keyring()),
            refresh_expires_at,
            token_type: "Bearer".to_owned(),
            user_id,
            session_id,
            device_id,
        }
    }
}
