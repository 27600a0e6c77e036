//! What this side asks of the command side, wherever that runs: the gateway, and whoever reads the audit.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use platform::auth::Caller;
use schemas::rest::{AdvanceReceipt, MessageSent, Problem, SendMessage};
use schemas::{AuditFilters, Position, PositionToken};
use uuid::Uuid;

/// The command side, as the gateway sees it.
#[async_trait]
pub trait CommandPort: Send + Sync + 'static {
    /// Sends a message, within a trace where it brought one; answers once it is committed.
    async fn send(
        &self,
        caller: &Caller,
        conversation_id: Uuid,
        message: SendMessage,
        traceparent: Option<Arc<str>>,
    ) -> Result<MessageSent, Problem>;

    /// Takes the caller's watermarks, which are not beyond the conversation's head, and sees to it soon that they are
    /// committed; those that are not forward, or of one who is no longer a member, are dropped. Must not block.
    fn take_receipt(&self, caller: &Caller, conversation_id: Uuid, receipt: AdvanceReceipt)
    -> Result<(), Box<Problem>>;

    /// Advances the caller's watermarks, of which nothing is known, as the PUT does; answers once it is decided.
    async fn advance_receipt(
        &self,
        caller: &Caller,
        conversation_id: Uuid,
        receipt: AdvanceReceipt,
    ) -> Result<(), Problem>;

    /// The number of the last committed event of each of these conversations; those that are unknown are left out.
    async fn heads(&self, conversations: &[Uuid]) -> Result<HashMap<Uuid, u64>, Problem>;

    /// Takes down that a caller reads the audit, under a correlation id; refuses one who may not. Answers once it is
    /// committed, and where.
    async fn read_audit(
        &self,
        caller: &Caller,
        correlation_id: Option<&str>,
        filters: AuditFilters,
    ) -> Result<PositionToken, Problem>;

    /// The last committed position of each shard of the conversations' topic.
    async fn positions(&self) -> Result<Vec<Position>, Problem>;
}
