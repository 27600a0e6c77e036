//! Gives a user a role, or takes it; who has which stands among the keys too, to be listed.

use domain::kernel::LogTopic;
use domain::user::{Role, User, UserCommand, UserRefusal};
use event_store::{Command, Reads, Workspace};
use uuid::Uuid;

/// Who has a role: `ROLE:USER`.
pub(crate) const ROLES: &str = "roles";

/// The key of a user's role.
pub(crate) fn role_key(role: Role, user: &str) -> String {
    match role {
        Role::Operator => format!("operator:{user}"),
    }
}

/// Gives a role, or takes it.
pub(crate) struct SetRole {
    pub(crate) user_id: Uuid,
    pub(crate) role: Role,
    pub(crate) granted: bool,
}

impl Command for SetRole {
    type Output = ();
    type Refusal = UserRefusal;

    fn topic(&self) -> LogTopic {
        LogTopic::Users
    }

    fn key(&self) -> Uuid {
        self.user_id
    }

    fn reads(&self, reads: &mut Reads) {
        reads.stream::<User>(self.user_id);
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<(), UserRefusal> {
        let command = UserCommand::SetRole { role: self.role, granted: self.granted };
        let events = work.stream::<User>(self.user_id).state.decide(command)?;
        if events.is_empty() {
            return Ok(());
        }
        for event in events {
            work.emit::<User>(self.user_id, event);
        }
        let key = role_key(self.role, &self.user_id.to_string());
        if self.granted {
            work.put(ROLES, key, self.user_id);
        } else {
            work.release(ROLES, key);
        }
        Ok(())
    }
}
