//! Begins a session on a device; the one that lived there ends.

use domain::kernel::LogTopic;
use domain::session::{Client, RevokeReason, Session, SessionCommand, Started};
use domain::user::User;
use event_store::{Command, Reads, Workspace};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::revoke_sessions::{DEVICES, LiveSession, device_key, revoke};

/// Begins a session for one whose password was checked.
pub(crate) struct StartSession {
    pub(crate) user_id: Uuid,
    pub(crate) session_id: Uuid,
    pub(crate) device_id: Uuid,
    pub(crate) device_name: Option<String>,
    pub(crate) refresh_hash: String,
    pub(crate) refresh_ttl: Duration,
    pub(crate) session_ttl: Duration,
    pub(crate) client: Client,
    /// The hash that the password was checked against.
    pub(crate) checked_against: String,
    /// The session that lives on the device, as far as the caller knows.
    pub(crate) previous: Option<Uuid>,
}

/// Why no session began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartRefusal {
    /// No such account, or its password was changed meanwhile.
    Credentials,
    /// Another session lives on the device than the caller knew.
    DeviceMoved(Option<Uuid>),
    /// The session's id is in use.
    Exists,
}

impl Command for StartSession {
    /// When the first refresh token expires.
    type Output = OffsetDateTime;
    type Refusal = StartRefusal;

    fn topic(&self) -> LogTopic {
        LogTopic::Users
    }

    fn key(&self) -> Uuid {
        self.user_id
    }

    fn reads(&self, reads: &mut Reads) {
        reads.stream::<User>(self.user_id);
        reads.fresh::<Session>(self.session_id);
        reads.lookup(DEVICES, device_key(self.user_id, self.device_id));
        if let Some(previous) = self.previous {
            reads.stream::<Session>(previous);
        }
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<OffsetDateTime, StartRefusal> {
        let Self { user_id, session_id, device_id, .. } = *self;
        let user = work.stream::<User>(user_id).state;
        if user.account().is_none_or(|account| account.password_hash != self.checked_against) {
            return Err(StartRefusal::Credentials);
        }
        let device = device_key(user_id, device_id);
        let lives = work.lookup(DEVICES, &device);
        if lives != self.previous {
            return Err(StartRefusal::DeviceMoved(lives));
        }
        if let Some(previous) = self.previous {
            let previous = LiveSession { session_id: previous, device_id: None };
            revoke(work, user_id, &previous, RevokeReason::Replaced).map_err(|_| StartRefusal::Exists)?;
        }
        let ends_at = work.now() + self.session_ttl;
        let refresh_expires_at = (work.now() + self.refresh_ttl).min(ends_at);
        let started = Started {
            device_id,
            device_name: self.device_name.clone(),
            refresh_hash: self.refresh_hash.clone(),
            refresh_expires_at,
            ends_at,
            client: self.client.clone(),
        };
        let session = work.stream::<Session>(session_id).state;
        for event in session.decide(SessionCommand::Start(started)).map_err(|_| StartRefusal::Exists)? {
            work.emit::<Session>(session_id, event);
        }
        work.put(DEVICES, device, session_id);
        Ok(refresh_expires_at)
    }
}
