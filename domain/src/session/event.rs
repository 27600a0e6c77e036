//! What happened to a session.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::kernel::{events, from_bodies};

events! {
    /// An event of a session. The session's id is the aggregate's, the ordering key its user.
    pub enum SessionEvent {
        /// A user logged in on a device.
        "session.started", 1 => Started(Started),
        /// The refresh token was exchanged for its successor.
        "session.refreshed", 1 => Refreshed(Refreshed),
        /// Its tokens are refused from now on.
        "session.revoked", 1 => Revoked(Revoked),
        /// A refresh token that was used up came again.
        "session.reuse_detected", 1 => ReuseDetected(ReuseDetected),
    }
}

from_bodies!(SessionEvent: Started, Refreshed, Revoked, ReuseDetected);

/// Where a session is used from, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The network address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What program it says that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

impl Client {
    fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// A user logged in on a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// The device, by the id that it chose.
    pub device_id: Uuid,
    /// What its user calls it.
    pub device_name: Option<String>,
    /// SHA-256 of the first refresh token, in hex.
    pub refresh_hash: String,
    /// When that token expires.
    #[serde(with = "time::serde::rfc3339")]
    pub refresh_expires_at: OffsetDateTime,
    /// When the session ends however often it is refreshed.
    #[serde(with = "time::serde::rfc3339")]
    pub ends_at: OffsetDateTime,
    /// Where from.
    #[serde(default, skip_serializing_if = "Client::is_unknown")]
    pub client: Client,
}

/// The refresh token was exchanged for its successor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refreshed {
    /// The session's device.
    pub device_id: Uuid,
    /// SHA-256 of the new refresh token, in hex.
    pub refresh_hash: String,
    /// When the new token expires.
    #[serde(with = "time::serde::rfc3339")]
    pub refresh_expires_at: OffsetDateTime,
    /// When the exchange was made; a replay is forgiven for a moment from here.
    #[serde(with = "time::serde::rfc3339")]
    pub rotated_at: OffsetDateTime,
    /// Where from.
    #[serde(default, skip_serializing_if = "Client::is_unknown")]
    pub client: Client,
}

/// Its tokens are refused from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revoked {
    /// The session's device.
    pub device_id: Uuid,
    /// Why.
    pub reason: RevokeReason,
}

/// Why a session was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeReason {
    /// Its user logged out.
    LoggedOut,
    /// Its device logged in anew.
    Replaced,
    /// The password was changed in another session.
    PasswordChanged,
    /// A used-up refresh token came again.
    Reuse,
}

/// A refresh token that was used up came again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReuseDetected {
    /// The session's device.
    pub device_id: Uuid,
    /// Which of the family's tokens came: 0 is the one of the log-in.
    pub generation: u32,
    /// Where from.
    #[serde(default, skip_serializing_if = "Client::is_unknown")]
    pub client: Client,
}
