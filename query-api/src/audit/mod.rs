//! The audit: who did what to what, when, from where. For operators, who are taken down themselves before they are answered.

mod list;
mod progress;
mod search;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use search::{AuditPlace, AuditSearch, find_user, search};

use crate::state::QueryState;

pub(crate) fn router() -> OpenApiRouter<QueryState> {
    OpenApiRouter::new().routes(routes!(list::list))
}
