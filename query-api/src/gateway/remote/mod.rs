//! The command side where it is not in this process: [`CommandPort`] by HTTP/2, as `platform::internal` describes it.
//!
//! Each command-api has one connection, which a task of its own keeps (`link`); a call goes to the owner of its conversation
//! and, where that cannot be reached, to whoever is next (`fleet`). That is right whatever became of the first try: messages
//! have ids, and watermarks only go forward. Messages of one conversation leave one call after the other, so that none
//! overtakes another (`outbox`); watermarks that nobody waits for are gathered (`receipts`).

mod call;
mod fleet;
mod link;
mod outbox;
mod receipts;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::try_join_all;
use platform::auth::{Caller, Keyring};
use platform::internal::{
    self, Advance, AuditReading, Conversations, HEADS, Heads, MOST_CONVERSATIONS, POSITIONS, Positions, READ_AUDIT,
    ReadAudit,
};
use platform::registry::Members;
use schemas::rest::{AdvanceReceipt, MessageSent, Problem, SendMessage};
use schemas::{AuditFilters, Position, PositionToken};
use tokio::sync::watch;
use uuid::Uuid;

use super::CommandPort;
use call::Calls;
use fleet::Whose;
use outbox::Outbox;
use receipts::Receipts;

/// The command side, in whichever processes it runs.
#[derive(Debug)]
pub struct RemoteCommands {
    calls: Arc<Calls>,
    outbox: Outbox,
    receipts: Receipts,
}

impl RemoteCommands {
    /// One that calls those who take commands (`platform::registry::watch`), and proves itself by the installation's keys.
    pub fn new(members: watch::Receiver<Members>, keyring: &Keyring) -> Self {
        let calls = Arc::new(Calls::new(members, &keyring.internal_token()));
        Self { outbox: Outbox::new(calls.clone()), receipts: Receipts::start(calls.clone()), calls }
    }

    /// How many command-apis can be reached at this moment.
    pub fn reachable(&self) -> usize {
        self.calls.reachable()
    }

    /// Carries out what was taken and not yet done, and takes nothing more. To be called once no socket is open, by one who
    /// bounds the wait.
    pub async fn drain(&self) {
        self.outbox.drain().await;
        self.receipts.drain().await;
    }
}

#[async_trait]
impl CommandPort for RemoteCommands {
    async fn send(
        &self,
        caller: &Caller,
        conversation_id: Uuid,
        message: SendMessage,
        traceparent: Option<Arc<str>>,
    ) -> Result<MessageSent, Problem> {
        self.outbox.send(*caller, conversation_id, message, traceparent.as_deref()).await
    }

    fn take_receipt(
        &self,
        caller: &Caller,
        conversation_id: Uuid,
        receipt: AdvanceReceipt,
    ) -> Result<(), Box<Problem>> {
        self.receipts.take(caller, conversation_id, &receipt)
    }

    async fn advance_receipt(
        &self,
        caller: &Caller,
        conversation_id: Uuid,
        receipt: AdvanceReceipt,
    ) -> Result<(), Problem> {
        let advance = Advance { caller: *caller, conversation_id, receipt };
        self.calls.tell(Whose::Owner(conversation_id), internal::ADVANCE, &advance).await
    }

    async fn heads(&self, conversations: &[Uuid]) -> Result<HashMap<Uuid, u64>, Problem> {
        let answers = try_join_all(conversations.chunks(MOST_CONVERSATIONS).map(async |chunk| {
            let asked = Conversations { conversation_ids: chunk.to_vec() };
            self.calls.ask::<Heads>(Whose::Anyone, HEADS, &asked).await
        }));
        Ok(answers.await?.into_iter().flat_map(|answer| answer.heads).collect())
    }

    async fn read_audit(
        &self,
        caller: &Caller,
        correlation_id: Option<&str>,
        filters: AuditFilters,
    ) -> Result<PositionToken, Problem> {
        let reading = ReadAudit { caller: *caller, correlation_id: correlation_id.map(str::to_owned), filters };
        let taken: AuditReading = self.calls.ask(Whose::Anyone, READ_AUDIT, &reading).await?;
        Ok(taken.position)
    }

    async fn positions(&self) -> Result<Vec<Position>, Problem> {
        let answer: Positions = self.calls.ask(Whose::Anyone, POSITIONS, &HashMap::<(), ()>::new()).await?;
        Ok(answer.positions)
    }
}
