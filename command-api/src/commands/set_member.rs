//! Adds a member, or gives one another role.

use domain::conversation::{Conversation, ConversationCommand, ConversationEvent, ConversationRefusal, Role};
use domain::kernel::LogTopic;
use event_store::{Command, Reads, Workspace};
use uuid::Uuid;

/// Adds a member, or gives one another role.
pub(crate) struct SetMember {
    pub(crate) conversation_id: Uuid,
    pub(crate) by: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) role: Role,
    /// Whether there is such a user.
    pub(crate) user_exists: bool,
}

impl Command for SetMember {
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
        let next_seq = work.next_seq();
        let command = ConversationCommand::SetMember { by: self.by, user_id: self.user_id, role: self.role, next_seq };
        for event in work.stream::<Conversation>(self.conversation_id).state.decide(command)? {
            if matches!(event, ConversationEvent::MemberJoined(_)) && !self.user_exists {
                return Err(ConversationRefusal::Unknown);
            }
            work.emit_numbered::<Conversation>(self.conversation_id, event);
        }
        Ok(())
    }
}
