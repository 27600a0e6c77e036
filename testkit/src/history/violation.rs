//! What can be wrong with a run, each naming where.

use std::fmt;

use uuid::Uuid;

/// One thing that should never be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what the text of each variant names")]
pub enum Violation {
    /// An acknowledged message is not in its history.
    Lost { conversation: Uuid, message: Uuid, seq: u64 },
    /// An acknowledged message is not where its acknowledgement said.
    Moved { conversation: Uuid, message: Uuid, promised: u64, seq: u64 },
    /// A message is in the history more than once.
    Twice { conversation: Uuid, message: Uuid, seqs: Vec<u64> },
    /// A message has another content or sender in the history than it was sent with.
    Changed { conversation: Uuid, message: Uuid, seq: u64 },
    /// A refused message is in the history.
    RefusedYetKept { conversation: Uuid, message: Uuid, seq: u64 },
    /// The history has a message that nobody sent.
    NeverSent { conversation: Uuid, message: Uuid, seq: u64 },
    /// The history does not ascend by seq.
    HistoryOutOfOrder { conversation: Uuid, after: u64, seq: u64 },
    /// No event has this seq.
    SeqMissing { conversation: Uuid, seq: u64 },
    /// Two events have this seq.
    SeqTwice { conversation: Uuid, seq: u64 },
    /// An event lies beyond the head that the conversation is said to have.
    BeyondHead { conversation: Uuid, seq: u64, head: u64 },
    /// A message was answered before another was sent, and yet comes after it.
    Overtaken { conversation: Uuid, first: Uuid, second: Uuid },
    /// A device did not get everything.
    NotDelivered { device: String, conversation: Uuid, has: u64, head: u64 },
    /// A device got an event before the one that comes before it.
    Gap { device: String, conversation: Uuid, after: u64, seq: u64 },
    /// A device got another message under a seq than the history has there.
    OtherMessage { device: String, conversation: Uuid, seq: u64 },
    /// A device got an event of a conversation that is not in the run.
    UnknownConversation { device: String, conversation: Uuid, seq: u64 },
    /// A receipt went back.
    ReceiptWentBack { device: String, conversation: Uuid, user: Uuid, before: (u64, u64), after: (u64, u64) },
    /// Watermarks that cannot be: read beyond delivered, delivered beyond the head, or told beyond what is stored.
    Watermarks { conversation: Uuid, user: Uuid, delivered_to: u64, read_to: u64, head: u64 },
    /// `unread` is not the number of others' messages beyond `read_to`.
    Unread { conversation: Uuid, user: Uuid, told: u64, counted: u64 },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { conversation, message, seq } => {
                write!(f, "lost: message {message} was acknowledged as {conversation}/{seq} and is not in the history")
            }
            Self::Moved { conversation, message, promised, seq } => {
                write!(f, "moved: message {message} was acknowledged as {conversation}/{promised} and is at {seq}")
            }
            Self::Twice { conversation, message, seqs } => {
                write!(f, "twice: message {message} is in {conversation} at {seqs:?}")
            }
            Self::Changed { conversation, message, seq } => {
                write!(f, "changed: message {message} at {conversation}/{seq} has another content or sender")
            }
            Self::RefusedYetKept { conversation, message, seq } => {
                write!(f, "refused yet kept: message {message} is at {conversation}/{seq}")
            }
            Self::NeverSent { conversation, message, seq } => {
                write!(f, "never sent: message {message} is at {conversation}/{seq}")
            }
            Self::HistoryOutOfOrder { conversation, after, seq } => {
                write!(f, "history out of order: {conversation}/{seq} comes after {after}")
            }
            Self::SeqMissing { conversation, seq } => write!(f, "seq missing: nothing is at {conversation}/{seq}"),
            Self::SeqTwice { conversation, seq } => write!(f, "seq twice: two events are at {conversation}/{seq}"),
            Self::BeyondHead { conversation, seq, head } => {
                write!(f, "beyond the head: {conversation}/{seq} exists, the head is said to be {head}")
            }
            Self::Overtaken { conversation, first, second } => write!(
                f,
                "overtaken: in {conversation} message {first} was answered before {second} was sent, and comes after it"
            ),
            Self::NotDelivered { device, conversation, has, head } => {
                write!(f, "not delivered: device {device} has {conversation} up to {has}, the head is {head}")
            }
            Self::Gap { device, conversation, after, seq } => {
                write!(f, "gap: device {device} got {conversation}/{seq} after {after}")
            }
            Self::OtherMessage { device, conversation, seq } => {
                write!(
                    f,
                    "other message: device {device} got under {conversation}/{seq} what the history has not there"
                )
            }
            Self::UnknownConversation { device, conversation, seq } => {
                write!(f, "unknown conversation: device {device} got {conversation}/{seq}")
            }
            Self::ReceiptWentBack { device, conversation, user, before, after } => write!(
                f,
                "receipt went back: device {device} saw (delivered, read) of {user} in {conversation} go from {before:?} to {after:?}"
            ),
            Self::Watermarks { conversation, user, delivered_to, read_to, head } => write!(
                f,
                "watermarks: {user} in {conversation} is at delivered {delivered_to}, read {read_to}, with head {head}"
            ),
            Self::Unread { conversation, user, told, counted } => {
                write!(f, "unread: {user} is told {told} in {conversation}, counted are {counted}")
            }
        }
    }
}
