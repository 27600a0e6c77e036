//! `GET /v1/audit`

use axum::extract::State;
use axum::response::Response;
use platform::auth::Caller;
use platform::http::{Problem, Query, RequestContext};
use schemas::AuditFilters;
use schemas::rest::{AuditEntry, Page};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::IntoParams;
use uuid::Uuid;

use super::progress::Wanted;
use super::search::{AuditPlace, AuditSearch, find_user, search};
use crate::freshness::FreshnessHeaders;
use crate::page::{Key, Paging, PagingParameters};
use crate::refusals::{NotOperator, Refused};
use crate::state::QueryState;

/// Parameters: the user.
const IS_OPERATOR: &str = "SELECT is_operator FROM read.users WHERE user_id = $1";
/// Longer than the name of any type.
const LONGEST_TYPE: usize = 64;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// What this user did: an id or a username.
    #[serde(default)]
    #[param(required = false)]
    actor: Option<String>,
    /// What was done to this: an id, or a username.
    #[serde(default)]
    #[param(required = false)]
    object: Option<String>,
    /// Events of this type, such as `session.started`.
    #[serde(default, rename = "type")]
    #[param(required = false)]
    event_type: Option<String>,
    /// From this time on (RFC 3339).
    #[serde(default, with = "schemas::rfc3339_ms::option")]
    #[param(required = false, value_type = Option<String>, format = DateTime)]
    since: Option<OffsetDateTime>,
    /// Before this time (RFC 3339).
    #[serde(default, with = "schemas::rfc3339_ms::option")]
    #[param(required = false, value_type = Option<String>, format = DateTime)]
    until: Option<OffsetDateTime>,
}

/// Sorted by time and place, the newest first.
#[derive(Serialize, Deserialize)]
pub(super) struct Last(AuditPlace);

impl Key for Last {
    const LIST: &'static str = "audit";
}

/// Who did what to what, when, from where: for operators. That one has looked is taken down before the answer is given.
#[utoipa::path(get, path = "/v1/audit", tag = "operators", operation_id = "readAudit",
    params(Asked, PagingParameters, FreshnessHeaders),
    security(("bearer" = [])), responses((status = 200, body = Page<AuditEntry>), Refused, NotOperator))]
pub(super) async fn list(
    State(state): State<QueryState>,
    caller: Caller,
    context: RequestContext,
    Query(asked): Query<Asked>,
    Query(paging): Query<Paging<Last>>,
    wanted: Wanted,
) -> Result<Response, Problem> {
    let filters = AuditFilters {
        actor: named(&state, &caller, "actor", asked.actor.as_deref()).await?,
        object: named(&state, &caller, "object", asked.object.as_deref()).await?,
        event_type: asked.event_type,
        since: asked.since,
        until: asked.until,
    };
    if filters.event_type.as_ref().is_some_and(|name| name.len() > LONGEST_TYPE || name.contains('\0')) {
        return Err(Problem::invalid_parameter("type", "no event's type"));
    }
    // Who may not is refused here, by the log itself; and without a record of it nobody is shown anything.
    let recorded = state.commands().read_audit(&caller, context.correlation_id.as_deref(), filters.clone()).await;
    recorded.map_err(|problem| match problem.status {
        401 => Problem::unauthorized(),
        403 => Problem::forbidden(problem.detail),
        _ => Problem::unavailable("this reading could not be taken down, and is not answered therefore"),
    })?;
    let answer = wanted.begin(state.primary()).await?;
    let after = paging.cursor.map(|cursor| cursor.0.0);
    let entries = search(state.primary(), &AuditSearch { filters, after, limit: paging.limit.fetched() }).await?;
    answer.json(&paging.limit.page(entries, |last| Last(AuditPlace::of(last)), |entry| entry))
}

/// The id that a parameter means. Whoever may not read the audit is not told which names there are either.
async fn named(
    state: &QueryState,
    caller: &Caller,
    parameter: &'static str,
    text: Option<&str>,
) -> Result<Option<Uuid>, Problem> {
    let Some(text) = text else { return Ok(None) };
    if let Some(found) = find_user(state.primary(), text).await? {
        return Ok(Some(found));
    }
    let is_operator = sqlx::query_scalar(IS_OPERATOR).bind(caller.user_id).fetch_optional(state.primary()).await?;
    Err(match is_operator {
        Some(true) => Problem::invalid_parameter(parameter, "neither an id nor the name of a user"),
        _ => Problem::forbidden("only operators read the audit"),
    })
}
