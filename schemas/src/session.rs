//! Public events of sessions.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::rfc3339_ms;

/// Every `session.*` event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionChanged {
    /// Whose.
    pub user_id: Uuid,
    /// Which session.
    pub session_id: Uuid,
    /// On which device.
    pub device_id: Uuid,
    /// What the user calls the device; in `session.started` alone, else null.
    pub device_name: Option<String>,
    /// From which network address it was used, where known; in `session.started`, `.refreshed` and `.reuse_detected`.
    #[serde(default)]
    pub address: Option<String>,
    /// What program its client said that it was, where known; in the same.
    #[serde(default)]
    pub user_agent: Option<String>,
    /// When.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
}
