//! A command side that takes readings of the audit down in memory, or refuses them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use platform::auth::Caller;
use schemas::rest::{AdvanceReceipt, MessageSent, Problem, SendMessage};
use schemas::{AuditFilters, Position, PositionToken, Topic};
use uuid::Uuid;

use crate::gateway::CommandPort;

#[derive(Default)]
pub(crate) struct Commands {
    /// Who read, and what for.
    pub(crate) readings: Mutex<Vec<(Uuid, AuditFilters)>>,
    /// The status that readings are refused with; 0 for none.
    pub(crate) refuses: AtomicU16,
}

fn problem(status: u16) -> Problem {
    Problem {
        kind: "/problems/x".to_owned(),
        title: "x".to_owned(),
        status,
        detail: "x".to_owned(),
        retryable: status == 503,
        trace_id: "x".to_owned(),
        retry_after_s: None,
        errors: vec![],
    }
}

#[async_trait]
impl CommandPort for Commands {
    async fn read_audit(
        &self,
        caller: &Caller,
        _: Option<&str>,
        filters: AuditFilters,
    ) -> Result<PositionToken, Problem> {
        match self.refuses.load(Ordering::Relaxed) {
            0 => {
                self.readings.lock().push((caller.user_id, filters));
                Ok(Position { topic: Topic::Users, shard: 3, position: 1 }.into())
            }
            status => Err(problem(status)),
        }
    }

    async fn send(&self, _: &Caller, _: Uuid, _: SendMessage, _: Option<Arc<str>>) -> Result<MessageSent, Problem> {
        Err(problem(503))
    }

    fn take_receipt(&self, _: &Caller, _: Uuid, _: AdvanceReceipt) -> Result<(), Box<Problem>> {
        Err(Box::new(problem(503)))
    }

    async fn advance_receipt(&self, _: &Caller, _: Uuid, _: AdvanceReceipt) -> Result<(), Problem> {
        Err(problem(503))
    }

    async fn heads(&self, _: &[Uuid]) -> Result<HashMap<Uuid, u64>, Problem> {
        Err(problem(503))
    }

    async fn positions(&self) -> Result<Vec<Position>, Problem> {
        Err(problem(503))
    }
}
