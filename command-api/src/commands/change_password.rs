//! Changes a password, and ends the user's other sessions with it.

use domain::kernel::LogTopic;
use domain::session::{RevokeReason, Session};
use domain::user::{User, UserCommand, UserRefusal};
use event_store::{Command, Reads, Workspace};
use uuid::Uuid;

use super::revoke_sessions::{LiveSession, read, revoke};

/// Sets a password whose predecessor was checked.
pub(crate) struct ChangePassword {
    pub(crate) user_id: Uuid,
    /// The hash that the current password was checked against.
    pub(crate) checked_against: String,
    pub(crate) password_hash: String,
    /// The user's sessions apart from the one that asks.
    pub(crate) others: Vec<LiveSession>,
}

impl Command for ChangePassword {
    /// The event, which causes all that ends with the old password.
    type Output = Option<Uuid>;
    type Refusal = UserRefusal;

    fn topic(&self) -> LogTopic {
        LogTopic::Users
    }

    fn key(&self) -> Uuid {
        self.user_id
    }

    fn reads(&self, reads: &mut Reads) {
        reads.stream::<User>(self.user_id);
        self.others.iter().for_each(|session| read(reads, self.user_id, session));
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<Option<Uuid>, UserRefusal> {
        let command = UserCommand::ChangePassword {
            checked_against: self.checked_against.clone(),
            password_hash: self.password_hash.clone(),
        };
        for event in work.stream::<User>(self.user_id).state.decide(command)? {
            work.emit::<User>(self.user_id, event);
        }
        let changed = work.last_event();
        work.because_of_last();
        for session in &self.others {
            if work.stream::<Session>(session.session_id).sequence > 0 {
                // The only refusal is that there is none.
                let _ = revoke(work, self.user_id, session, RevokeReason::PasswordChanged);
            }
        }
        Ok(changed)
    }
}
