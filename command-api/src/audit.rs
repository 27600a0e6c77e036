//! Readings of the audit, which are taken down before they are answered.

use domain::audit::{AuditRead, ReadingRefusal};
use platform::auth::Caller;
use platform::http::{Problem, RequestContext};
use schemas::{AuditFilters, PositionToken};
use uuid::Uuid;

use crate::commands::ReadAudit;
use crate::execute::{Refusal, token};
use crate::service::Service;

impl Service {
    /// Takes down that a caller reads the audit, and where that stands in the log.
    ///
    /// # Errors
    /// 403 for one who is no operator, 503 without the log.
    pub async fn read_audit(
        &self,
        caller: &Caller,
        wanted: AuditFilters,
        context: &RequestContext,
    ) -> Result<PositionToken, Problem> {
        let AuditFilters { actor, object, event_type, since, until } = wanted;
        let command = ReadAudit {
            user_id: caller.user_id,
            reading_id: Uuid::now_v7(),
            wanted: AuditRead { actor, object, event_type, since, until },
        };
        Ok(token(self.execute(command, &context.clone().by(caller)).await?.position))
    }
}

impl Refusal for ReadingRefusal {
    fn problem(self) -> Problem {
        match self {
            Self::Role => Problem::forbidden(self.to_string()),
            Self::Exists => Problem::conflict(self.to_string()),
        }
    }
}
