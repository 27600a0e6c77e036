//! What processes say to the command side when it is not in theirs, gateways mostly: paths and JSON bodies.
//!
//! They are private to processes of one installation, which prove by a key of theirs that they are
//! ([`crate::auth::Keyring::internal_token`]), and speak for callers whom the gateway has authenticated. Refusals are the
//! public problems, which the gateway hands on as they are.

mod committed;
mod dial;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use schemas::rest::{AdvanceReceipt, MessageSent, Problem, SendMessage};
use schemas::{AuditFilters, Position, PositionToken};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::auth::Caller;
pub use committed::{Told, Untold};
pub use dial::{DialError, dial};

/// Says messages in one conversation: [`SendMessages`] → [`MessagesSent`].
pub const SEND: &str = "/internal/v1/messages";
/// Advances watermarks for one who waits for what comes of it: [`Advance`] → no content.
pub const ADVANCE: &str = "/internal/v1/receipts/advance";
/// Takes watermarks that nobody waits for: [`TakeReceipts`] → [`ReceiptsTaken`].
pub const TAKE_RECEIPTS: &str = "/internal/v1/receipts";
/// Tells how far conversations have got: [`Conversations`] → [`Heads`].
pub const HEADS: &str = "/internal/v1/heads";
/// Tells how far the conversations' shards have got: `{}` → [`Positions`].
pub const POSITIONS: &str = "/internal/v1/positions";
/// Tells what is committed there from now on: [`Committed`] → batches of events, a line of JSON each, without an end.
pub const COMMITTED: &str = "/internal/v1/committed";
/// Takes down that an operator reads the audit: [`ReadAudit`] → [`AuditReading`].
pub const READ_AUDIT: &str = "/internal/v1/audit-readings";

/// How many messages go in one call.
pub const MOST_MESSAGES: usize = 64;
/// How many watermarks go in one call.
pub const MOST_MOVES: usize = 400;
/// How many conversations are asked for in one call.
pub const MOST_CONVERSATIONS: usize = 1_000;

/// Messages to be said in one conversation, in this order.
#[derive(Debug, Serialize, Deserialize)]
pub struct SendMessages {
    /// The conversation.
    pub conversation_id: Uuid,
    /// The messages, and who says them.
    pub messages: Vec<Spoken>,
}

/// A message and who says it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Spoken {
    /// Who says it.
    pub caller: Caller,
    /// What is said.
    pub message: SendMessage,
    /// The trace that it is said in, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Arc<str>>,
}

/// What came of each message, in the order in which they were given.
#[derive(Debug, Serialize, Deserialize)]
pub struct MessagesSent {
    /// One a message.
    pub outcomes: Vec<Outcome>,
}

/// What came of a message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is committed.
    Sent(MessageSent),
    /// It was refused.
    Refused(Problem),
}

/// Watermarks of a caller who waits for what comes of them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Advance {
    /// Whose.
    pub caller: Caller,
    /// In which conversation.
    pub conversation_id: Uuid,
    /// How far.
    pub receipt: AdvanceReceipt,
}

/// Watermarks to be committed.
#[derive(Debug, Serialize, Deserialize)]
pub struct TakeReceipts {
    /// At most [`MOST_MOVES`].
    pub moves: Vec<ReceiptMove>,
}

/// What a device says about its user's progress in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptMove {
    /// The conversation.
    pub conversation_id: Uuid,
    /// The member.
    pub user_id: Uuid,
    /// The device that acked or read.
    pub device_id: Uuid,
    /// Everything up to this `seq` is on the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_to: Option<u64>,
    /// Everything up to this `seq` was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_to: Option<u64>,
}

/// Of how many of the watermarks, from the beginning of the list, it is settled what became of them: they are committed, or
/// will never be.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReceiptsTaken {
    /// The number.
    pub taken: usize,
}

/// Conversations that are asked for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Conversations {
    /// At most [`MOST_CONVERSATIONS`].
    pub conversation_ids: Vec<Uuid>,
}

/// The number of the last committed event of each conversation; those that are unknown are left out.
#[derive(Debug, Serialize, Deserialize)]
pub struct Heads {
    /// By conversation.
    pub heads: HashMap<Uuid, u64>,
}

/// The last committed position of each shard of the conversations' topic.
#[derive(Debug, Serialize, Deserialize)]
pub struct Positions {
    /// One a shard.
    pub positions: Vec<Position>,
}

/// Which events are to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Those of these shards: the codes of their topics, and their numbers.
    pub shards: BTreeSet<(i16, u16)>,
}

/// A reading of the audit that is about to be answered.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReadAudit {
    /// Who reads.
    pub caller: Caller,
    /// Under which correlation id.
    pub correlation_id: Option<String>,
    /// What for.
    pub filters: AuditFilters,
}

/// Where the reading stands in the log.
#[derive(Debug, Serialize, Deserialize)]
pub struct AuditReading {
    /// The place.
    pub position: PositionToken,
}
