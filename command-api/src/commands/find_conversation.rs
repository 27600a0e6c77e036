//! Finds where a conversation began.

use std::convert::Infallible;

use domain::conversation::Conversation;
use domain::kernel::LogTopic;
use event_store::{Command, Reads, Recorded, Workspace};
use platform::http::Problem;
use uuid::Uuid;

use crate::execute::Refusal;

/// Looks, and changes nothing.
pub(crate) struct FindConversation {
    pub(crate) conversation_id: Uuid,
}

impl Command for FindConversation {
    /// Its first event.
    type Output = Option<Recorded>;
    type Refusal = Infallible;

    fn topic(&self) -> LogTopic {
        LogTopic::Conversations
    }

    fn key(&self) -> Uuid {
        self.conversation_id
    }

    fn reads(&self, reads: &mut Reads) {
        reads.stream::<Conversation>(self.conversation_id);
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<Option<Recorded>, Infallible> {
        Ok(work.stream::<Conversation>(self.conversation_id).first)
    }
}

impl Refusal for Infallible {
    fn problem(self) -> Problem {
        match self {}
    }
}
