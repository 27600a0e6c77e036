//! Opens a conversation; a pair has one for ever.

use domain::conversation::{Conversation, ConversationCommand, ConversationRefusal, Created, Kind};
use domain::kernel::LogTopic;
use event_store::{Command, Reads, Recorded, Workspace};
use platform::http::Problem;
use uuid::Uuid;

use crate::execute::Refusal;

/// Scope of pairs of users (see [`OpenConversation::pair`]), owned by their direct conversation.
const PAIRS: &str = "direct";

/// Opens a conversation.
pub(crate) struct OpenConversation {
    pub(crate) conversation_id: Uuid,
    pub(crate) created: Created,
}

/// Why it was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenRefusal {
    /// The two have this one.
    PairHas(Uuid),
    /// The domain refuses.
    Conversation(ConversationRefusal),
}

impl Refusal for OpenRefusal {
    fn problem(self) -> Problem {
        match self {
            Self::PairHas(_) => Problem::conflict("the two have a conversation already"),
            Self::Conversation(refusal) => refusal.problem(),
        }
    }
}

impl OpenConversation {
    /// The key of a direct conversation's pair: the same from both sides.
    fn pair(&self) -> Option<String> {
        match (self.created.kind, self.created.members.as_slice()) {
            (Kind::Direct, [(one, _), (other, _)]) => Some(format!("{}:{}", one.min(other), one.max(other))),
            _ => None,
        }
    }
}

impl Command for OpenConversation {
    /// Its first event.
    type Output = Recorded;
    type Refusal = OpenRefusal;

    fn topic(&self) -> LogTopic {
        LogTopic::Conversations
    }

    fn key(&self) -> Uuid {
        self.conversation_id
    }

    fn reads(&self, reads: &mut Reads) {
        reads.fresh::<Conversation>(self.conversation_id);
        if let Some(pair) = self.pair() {
            reads.lookup(PAIRS, pair);
        }
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<Recorded, OpenRefusal> {
        let id = self.conversation_id;
        if let Some(pair) = self.pair() {
            if let Some(conversation) = work.lookup(PAIRS, &pair) {
                return Err(OpenRefusal::PairHas(conversation));
            }
            work.claim(PAIRS, pair, id);
        }
        let conversation = work.stream::<Conversation>(id);
        let first = conversation.first;
        let events = conversation
            .state
            .decide(ConversationCommand::Create(self.created.clone()))
            .map_err(OpenRefusal::Conversation)?;
        let made = events.into_iter().map(|event| work.emit_numbered::<Conversation>(id, event)).last();
        made.or(first).ok_or(OpenRefusal::Conversation(ConversationRefusal::Unknown))
    }
}
