//! Makes an account; its username and e-mail address are its own from the same moment on.

use domain::kernel::LogTopic;
use domain::user::{Registered, User, UserCommand, UserRefusal};
use event_store::{Command, Reads, Workspace};
use uuid::Uuid;

/// Scope of case-folded usernames, owned by users.
pub(crate) const USERNAMES: &str = "username";
/// Scope of lower-case e-mail addresses, owned by users.
pub(crate) const EMAILS: &str = "email";

/// Makes an account.
pub(crate) struct RegisterUser {
    pub(crate) user_id: Uuid,
    pub(crate) account: Registered,
    /// The form in which the e-mail address is unique.
    pub(crate) email_key: String,
}

impl Command for RegisterUser {
    type Output = ();
    type Refusal = UserRefusal;

    fn topic(&self) -> LogTopic {
        LogTopic::Users
    }

    fn key(&self) -> Uuid {
        self.user_id
    }

    fn reads(&self, reads: &mut Reads) {
        reads.fresh::<User>(self.user_id);
        reads.lookup(USERNAMES, self.account.username.as_str());
        reads.lookup(EMAILS, self.email_key.as_str());
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<(), UserRefusal> {
        let command = UserCommand::Register {
            account: self.account.clone(),
            username_taken: work.lookup(USERNAMES, &self.account.username).is_some(),
            email_taken: work.lookup(EMAILS, &self.email_key).is_some(),
        };
        for event in work.stream::<User>(self.user_id).state.decide(command)? {
            work.emit::<User>(self.user_id, event);
        }
        work.claim(USERNAMES, self.account.username.as_str(), self.user_id);
        work.claim(EMAILS, self.email_key.as_str(), self.user_id);
        Ok(())
    }
}
