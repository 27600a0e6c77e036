//! Says something in a conversation, once.

use domain::conversation::Conversation;
use domain::kernel::LogTopic;
use domain::message::{Message, MessageRefusal, Sent};
use event_store::{Command, Reads, Recorded, Workspace};
use platform::http::Problem;
use platform::limits::RetryAfter;
use uuid::Uuid;

use crate::execute::Refusal;

/// Says something, once.
pub(crate) struct SendMessage {
    pub(crate) conversation_id: Uuid,
    pub(crate) message_id: Uuid,
    pub(crate) message: Sent,
    /// The sender's rate limit, where it was reached: then only a known id is answered.
    pub(crate) limited: Option<RetryAfter>,
}

/// Why it was not said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendRefusal {
    /// The domain refuses.
    Message(MessageRefusal),
    /// The sender sends too much.
    Limited(RetryAfter),
}

impl Refusal for SendRefusal {
    fn problem(self) -> Problem {
        match self {
            Self::Message(refusal) => refusal.problem(),
            Self::Limited(retry) => Problem::rate_limited(retry.seconds()),
        }
    }
}

impl Command for SendMessage {
    /// Its event, also when that was committed before.
    type Output = Recorded;
    type Refusal = SendRefusal;

    fn topic(&self) -> LogTopic {
        LogTopic::Conversations
    }

    fn key(&self) -> Uuid {
        self.conversation_id
    }

    fn reads(&self, reads: &mut Reads) {
        reads.stream::<Conversation>(self.conversation_id);
        reads.fresh::<Message>(self.message_id);
        if let Some(reply_to) = self.message.reply_to {
            reads.stream::<Message>(reply_to);
        }
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<Recorded, SendRefusal> {
        let refuse = SendRefusal::Message;
        let known = work.stream::<Message>(self.message_id);
        if known.first.is_some_and(|first| first.key != self.conversation_id) {
            return Err(refuse(MessageRefusal::Exists));
        }
        if let (Some(retry), None) = (self.limited, known.first) {
            return Err(SendRefusal::Limited(retry));
        }
        let conversation = work.stream::<Conversation>(self.conversation_id).state;
        let reply_known = self.message.reply_to.is_some_and(|reply_to| {
            work.stream::<Message>(reply_to).first.is_some_and(|first| first.key == self.conversation_id)
        });
        let first = known.first;
        let events = known.state.send(self.message.clone(), conversation, reply_known).map_err(refuse)?;
        let said = events.into_iter().map(|event| work.emit_numbered::<Message>(self.message_id, event)).last();
        said.or(first).ok_or(refuse(MessageRefusal::Exists))
    }
}
