//! The command side as the gateway sees it, where both run in one process.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use command_api::{ReceiptMove, Service};
use platform::auth::Caller;
use platform::http::{Problem as Refusal, RequestContext, TraceId};
use query_api::gateway::CommandPort;
use schemas::rest::{AdvanceReceipt, MessageSent, Problem, SendMessage};
use schemas::{AuditFilters, Position, PositionToken};
use uuid::Uuid;

/// Calls the command side without HTTP.
pub(crate) struct InProcessCommands(pub(crate) Service);

#[async_trait]
impl CommandPort for InProcessCommands {
    async fn send(
        &self,
        caller: &Caller,
        conversation_id: Uuid,
        message: SendMessage,
        traceparent: Option<Arc<str>>,
    ) -> Result<MessageSent, Problem> {
        let context = RequestContext::bare().by(caller).traced(traceparent);
        let sent = self.0.send(caller, conversation_id, message, &context).await;
        sent.map(|sent| sent.message).map_err(|problem| problem.to_body(context.trace_id))
    }

    fn take_receipt(
        &self,
        caller: &Caller,
        conversation_id: Uuid,
        receipt: AdvanceReceipt,
    ) -> Result<(), Box<Problem>> {
        let taken = self.0.take_receipt(moved(caller, conversation_id, &receipt));
        taken.map_err(|problem| Box::new(body(&problem)))
    }

    async fn advance_receipt(
        &self,
        caller: &Caller,
        conversation_id: Uuid,
        receipt: AdvanceReceipt,
    ) -> Result<(), Problem> {
        let context = RequestContext::bare();
        let advanced = self.0.advance(moved(caller, conversation_id, &receipt), &context).await;
        advanced.map(drop).map_err(|problem| problem.to_body(context.trace_id))
    }

    async fn heads(&self, conversations: &[Uuid]) -> Result<HashMap<Uuid, u64>, Problem> {
        self.0.heads(conversations).await.map_err(|problem| body(&problem))
    }

    async fn read_audit(
        &self,
        caller: &Caller,
        correlation_id: Option<&str>,
        filters: AuditFilters,
    ) -> Result<PositionToken, Problem> {
        let context = RequestContext { correlation_id: correlation_id.map(Into::into), ..RequestContext::bare() };
        let read = self.0.read_audit(caller, filters, &context).await;
        read.map_err(|problem| problem.to_body(context.trace_id))
    }

    async fn positions(&self) -> Result<Vec<Position>, Problem> {
        self.0.positions().await.map_err(|problem| body(&problem))
    }
}

fn moved(caller: &Caller, conversation_id: Uuid, receipt: &AdvanceReceipt) -> ReceiptMove {
    let AdvanceReceipt { delivered_to, read_to } = *receipt;
    let Caller { user_id, device_id, .. } = *caller;
    ReceiptMove { conversation_id, user_id, device_id, delivered_to, read_to }
}

fn body(problem: &Refusal) -> Problem {
    problem.to_body(TraceId::random())
}
