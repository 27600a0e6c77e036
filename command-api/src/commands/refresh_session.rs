//! Exchanges a refresh token for its successor; one that was used up ends the session.

use domain::kernel::LogTopic;
use domain::session::{Client, Refresh, Session, SessionCommand, SessionEvent, SessionRefusal};
use event_store::{Command, Reads, Workspace};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::revoke_sessions::{DEVICES, device_key};
use crate::refresh_token::RefreshToken;

/// Exchanges a token that is authentic.
#[derive(Clone)]
pub(crate) struct RefreshSession {
    pub(crate) presented: RefreshToken,
    pub(crate) presented_hash: String,
    pub(crate) successor_hash: String,
    pub(crate) device_id: Uuid,
    pub(crate) refresh_ttl: Duration,
    pub(crate) grace: Duration,
    pub(crate) client: Client,
    /// The device of the session, once its access tokens are refused because of a reuse.
    pub(crate) reused_on: Option<Uuid>,
}

/// Why no token was exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshRefusal {
    /// Unknown, expired or revoked.
    Session,
    /// The token was used up before. Nothing was written: first, access tokens of the session are to be refused.
    Reused {
        /// The session's device.
        device_id: Uuid,
    },
}

impl From<SessionRefusal> for RefreshRefusal {
    fn from(_: SessionRefusal) -> Self {
        Self::Session
    }
}

impl Command for RefreshSession {
    /// When the successor expires; none where the session was ended for a reuse.
    type Output = Option<OffsetDateTime>;
    type Refusal = RefreshRefusal;

    fn topic(&self) -> LogTopic {
        LogTopic::Users
    }

    fn key(&self) -> Uuid {
        self.presented.user_id
    }

    fn reads(&self, reads: &mut Reads) {
        reads.stream::<Session>(self.presented.session_id);
        if let Some(device_id) = self.reused_on {
            reads.lookup(DEVICES, device_key(self.presented.user_id, device_id));
        }
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<Option<OffsetDateTime>, RefreshRefusal> {
        let session_id = self.presented.session_id;
        let session = work.stream::<Session>(session_id).state;
        let events = session.decide(SessionCommand::Refresh(Refresh {
            generation: self.presented.generation,
            presented_hash: self.presented_hash.clone(),
            device_id: self.device_id,
            successor_hash: self.successor_hash.clone(),
            successor_expires_at: work.now() + self.refresh_ttl,
            now: work.now(),
            grace: self.grace,
            client: self.client.clone(),
        }))?;
        let reuse = events.iter().find_map(|event| match event {
            SessionEvent::ReuseDetected(reuse) => Some(reuse.device_id),
            _ => None,
        });
        if let (Some(device_id), None) = (reuse, self.reused_on) {
            return Err(RefreshRefusal::Reused { device_id });
        }
        for event in events {
            let is_reuse = matches!(event, SessionEvent::ReuseDetected(_));
            work.emit::<Session>(session_id, event);
            if is_reuse {
                work.because_of_last();
            }
        }
        if let Some(device_id) = reuse {
            let key = device_key(self.presented.user_id, device_id);
            if work.lookup(DEVICES, &key) == Some(session_id) {
                work.release(DEVICES, key);
            }
            return Ok(None);
        }
        let family = work.stream::<Session>(session_id).state.family().ok_or(RefreshRefusal::Session)?;
        Ok(Some(family.refresh_expires_at))
    }
}
