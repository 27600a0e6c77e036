//! Ends sessions of one user.

use domain::kernel::LogTopic;
use domain::session::{RevokeReason, Session, SessionCommand, SessionRefusal};
use event_store::{Command, Reads, Workspace};
use uuid::Uuid;

/// Scope of a user's devices (see [`device_key`]), owned by the session that lives there.
pub(crate) const DEVICES: &str = "device";

/// The key of a device: all of a user's begin alike.
pub(crate) fn device_key(user_id: Uuid, device_id: Uuid) -> String {
    format!("{user_id}:{device_id}")
}

/// A session, and its device where known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LiveSession {
    pub(crate) session_id: Uuid,
    pub(crate) device_id: Option<Uuid>,
}

/// Ends sessions of one user; those that have ended stay as they are.
pub(crate) struct RevokeSessions {
    pub(crate) user_id: Uuid,
    pub(crate) sessions: Vec<LiveSession>,
    pub(crate) reason: RevokeReason,
}

impl Command for RevokeSessions {
    type Output = ();
    type Refusal = SessionRefusal;

    fn topic(&self) -> LogTopic {
        LogTopic::Users
    }

    fn key(&self) -> Uuid {
        self.user_id
    }

    fn reads(&self, reads: &mut Reads) {
        self.sessions.iter().for_each(|session| read(reads, self.user_id, session));
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<(), SessionRefusal> {
        self.sessions.iter().try_for_each(|session| revoke(work, self.user_id, session, self.reason))
    }
}

/// What revoking a session looks at.
pub(super) fn read(reads: &mut Reads, user_id: Uuid, session: &LiveSession) {
    reads.stream::<Session>(session.session_id);
    if let Some(device_id) = session.device_id {
        reads.lookup(DEVICES, device_key(user_id, device_id));
    }
}

/// Ends a session, if it is this user's.
pub(super) fn revoke(
    work: &mut Workspace<'_>,
    user_id: Uuid,
    session: &LiveSession,
    reason: RevokeReason,
) -> Result<(), SessionRefusal> {
    let loaded = work.stream::<Session>(session.session_id);
    if loaded.first.is_none_or(|first| first.key != user_id) {
        return Err(SessionRefusal::Unknown);
    }
    for event in loaded.state.decide(SessionCommand::Revoke(reason))? {
        work.emit::<Session>(session.session_id, event);
    }
    if let Some(device_id) = session.device_id {
        let key = device_key(user_id, device_id);
        if work.lookup(DEVICES, &key) == Some(session.session_id) {
            work.release(DEVICES, key);
        }
    }
    Ok(())
}
