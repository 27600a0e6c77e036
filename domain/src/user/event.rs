//! What happened to a user.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::kernel::{events, from_bodies};

events! {
    /// An event of a user's account. The user's id is the aggregate's and the ordering key.
    pub enum UserEvent {
        /// The account was made.
        "user.registered", 1 => Registered(Registered),
        /// What others see of the user changed.
        "user.profile_changed", 1 => ProfileChanged(ProfileChanged),
        /// The password changed.
        "user.password_changed", 1 => PasswordChanged(PasswordChanged),
        /// The user may do more from now on.
        "user.role_granted", 1 => RoleGranted(RoleGranted),
        /// The user may do so no longer.
        "user.role_revoked", 1 => RoleRevoked(RoleRevoked),
    }
}

from_bodies!(UserEvent: Registered, ProfileChanged, PasswordChanged, RoleGranted, RoleRevoked);

/// The account was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    /// Case-folded, unique.
    pub username: String,
    /// As given; unique without case.
    pub email: String,
    /// The name that others see, if one was given.
    pub display_name: Option<String>,
    /// Argon2id, PHC string format.
    pub password_hash: String,
}

/// The profile as it is from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProfileChanged {
    /// The name that others see.
    pub display_name: Option<String>,
    /// The avatar's file.
    pub avatar_file_id: Option<Uuid>,
}

/// The password changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PasswordChanged {
    /// Argon2id, PHC string format.
    pub password_hash: String,
}

/// What a user may do beside what every user may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads the audit.
    Operator,
}

/// The user may do more from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoleGranted {
    /// As what.
    pub role: Role,
}

/// The user may do so no longer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoleRevoked {
    /// As what.
    pub role: Role,
}
