//! Readings of the audit.

use axum::extract::State;
use platform::http::{Json, Problem, RequestContext};
use platform::internal::{AuditReading, ReadAudit};

use super::credential::Colleague;
use crate::service::Service;

/// `POST /internal/v1/audit-readings`
pub(super) async fn read(
    _: Colleague,
    State(service): State<Service>,
    context: RequestContext,
    Json(ReadAudit { caller, correlation_id, filters }): Json<ReadAudit>,
) -> Result<Json<AuditReading>, Problem> {
    service.still_welcome(&caller)?;
    let context = RequestContext { correlation_id: correlation_id.map(Into::into), ..context };
    Ok(Json(AuditReading { position: service.read_audit(&caller, filters, &context).await? }))
}
