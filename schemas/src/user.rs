//! Public events of users.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::rfc3339_ms;

/// `user.registered`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UserRegistered {
    /// Who.
    pub user_id: Uuid,
    /// Case-folded, unique; null once the user was erased.
    pub username: Option<String>,
    /// The name that others see, where they have one.
    pub display_name: Option<String>,
    /// As given, unique without case; null once the user was erased.
    pub email: Option<String>,
    /// When.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
}

/// `user.profile_changed`: the profile as it is from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UserProfileChanged {
    /// Who.
    pub user_id: Uuid,
    /// The name that others see.
    pub display_name: Option<String>,
    /// The avatar's file.
    pub avatar_file_id: Option<Uuid>,
    /// When.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
}

/// The other events of a user, such as `user.password_changed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UserChanged {
    /// Who.
    pub user_id: Uuid,
    /// When.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
}

/// What a user may do beside what every user may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UserRole {
    /// Reads the audit.
    Operator,
}

/// `user.role_granted`, `user.role_revoked`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UserRoleChanged {
    /// Who.
    pub user_id: Uuid,
    /// As what.
    pub role: UserRole,
    /// When.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
}

/// `user.audit_read`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditRead {
    /// Who looked.
    pub user_id: Uuid,
    /// For what.
    pub filters: AuditFilters,
    /// When.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
}

/// Which entries of the audit are asked for; all where nothing is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditFilters {
    /// What this user did.
    pub actor: Option<Uuid>,
    /// What was done to this: a user, a session, a conversation, a message.
    pub object: Option<Uuid>,
    /// Events of this type.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    /// From this time on.
    #[serde(with = "rfc3339_ms::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<OffsetDateTime>,
    /// Before this time.
    #[serde(with = "rfc3339_ms::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<OffsetDateTime>,
}
