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
