//! Removes a member, or lets one leave.

use domain::conversation::{Conversation, ConversationCommand, ConversationRefusal};
use domain::kernel::LogTopic;
use event_store::{Command, Reads, Workspace};
use uuid::Uuid;

/// Removes a member, or lets one leave.
pub(crate) struct RemoveMember {
    pub(crate) conversation_id: Uuid,
    pub(crate) by: Uuid,
    pub(crate) user_id: Uuid,
}

impl Command for RemoveMember {
    type Output = ();
    type Refusal = ConversationRefusal;

    fn topic(&self) -> LogTopic {
        LogTopic::Conversations
    }

    fn key(&self) -> Uuid {
        self.conversation_id
    }

    fn reads(&self, reads: &mut Reads) {
        reads.stream::<Conversation>(self.conversation_id);
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<(), ConversationRefusal> {
        let command = ConversationCommand::RemoveMember { by: self.by, user_id: self.user_id };
        for event in work.stream::<Conversation>(self.conversation_id).state.decide(command)? {
            work.emit_numbered::<Conversation>(self.conversation_id, event);
        }
        Ok(())
    }
}
