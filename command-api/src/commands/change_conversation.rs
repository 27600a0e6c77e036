//! Changes a conversation's name and settings.

use domain::conversation::{Conversation, ConversationCommand, ConversationRefusal, History};
use domain::kernel::LogTopic;
use event_store::{Command, Reads, Workspace};
use uuid::Uuid;

/// Changes a conversation's name and settings.
pub(crate) struct ChangeConversation {
    pub(crate) conversation_id: Uuid,
    pub(crate) by: Uuid,
    pub(crate) name: Option<String>,
    pub(crate) history: Option<History>,
}

impl Command for ChangeConversation {
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
        let command = ConversationCommand::Change { by: self.by, name: self.name.clone(), history: self.history };
        for event in work.stream::<Conversation>(self.conversation_id).state.decide(command)? {
            work.emit_numbered::<Conversation>(self.conversation_id, event);
        }
        Ok(())
    }
}
