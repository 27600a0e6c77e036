//! Changes what others see of a user.

use domain::kernel::LogTopic;
use domain::user::{User, UserCommand, UserRefusal};
use event_store::{Command, Reads, Workspace};
use uuid::Uuid;

/// Changes what is given, keeps the rest.
pub(crate) struct ChangeProfile {
    pub(crate) user_id: Uuid,
    pub(crate) display_name: Option<String>,
}

impl Command for ChangeProfile {
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
        let command = UserCommand::ChangeProfile { display_name: self.display_name.clone() };
        for event in work.stream::<User>(self.user_id).state.decide(command)? {
            work.emit::<User>(self.user_id, event);
        }
        Ok(())
    }
}
