//! Moves a member's watermarks forward.

use domain::conversation::{Conversation, ConversationRefusal};
use domain::kernel::LogTopic;
use domain::receipt::{Advance, Receipt, ReceiptCommand, ReceiptRefusal, receipt_id};
use event_store::{Command, Reads, Workspace};
use platform::http::Problem;
use uuid::Uuid;

use crate::execute::Refusal;

/// A watermark, and the device that moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) to: u64,
    pub(crate) device_id: Option<Uuid>,
}

/// Moves a member's watermarks forward.
pub(crate) struct AdvanceReceipt {
    pub(crate) conversation_id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) delivered: Option<Moved>,
    pub(crate) read: Option<Moved>,
}

/// Why they do not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdvanceRefusal {
    /// The user has no say in the conversation.
    Conversation(ConversationRefusal),
    /// The domain refuses.
    Receipt(ReceiptRefusal),
}

impl Refusal for AdvanceRefusal {
    fn problem(self) -> Problem {
        match self {
            Self::Conversation(refusal) => refusal.problem(),
            Self::Receipt(refusal) => refusal.problem(),
        }
    }
}

impl Command for AdvanceReceipt {
    /// `(delivered_to, read_to)` from now on.
    type Output = (u64, u64);
    type Refusal = AdvanceRefusal;

    fn topic(&self) -> LogTopic {
        LogTopic::Conversations
    }

    fn key(&self) -> Uuid {
        self.conversation_id
    }

    fn reads(&self, reads: &mut Reads) {
        reads.stream::<Conversation>(self.conversation_id);
        reads.stream::<Receipt>(receipt_id(self.conversation_id, self.user_id));
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<(u64, u64), AdvanceRefusal> {
        let conversation = work.stream::<Conversation>(self.conversation_id).state;
        let member = conversation.member(self.user_id).map_err(AdvanceRefusal::Conversation)?;
        let id = receipt_id(self.conversation_id, self.user_id);
        let steps = [(self.delivered, None), (None, self.read)];
        for (delivered, read) in steps {
            let Some(device_id) = delivered.or(read).map(|moved| moved.device_id) else { continue };
            let command = ReceiptCommand::Advance(Advance {
                user_id: self.user_id,
                device_id,
                delivered_to: delivered.map(|moved| moved.to),
                read_to: read.map(|moved| moved.to),
                joined_seq: member.joined_seq,
                head: work.head(),
            });
            for event in work.stream::<Receipt>(id).state.decide(command).map_err(AdvanceRefusal::Receipt)? {
                work.emit::<Receipt>(id, event);
            }
        }
        Ok(work.stream::<Receipt>(id).state.watermarks(member.joined_seq))
    }
}
