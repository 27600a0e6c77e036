//! Bodies of commands. In a request absent, `null` and `[]` are the same.

use serde::{Deserialize, Deserializer, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{History, Kind, PositionToken, Role, rfc3339_ms};

/// A list that may be absent or `null`.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `POST /v1/users`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Register {
    /// 3–32 of `a-z 0-9 _ . -`, case-folded.
    pub username: String,
    /// Compared without case.
    pub email: String,
    /// 8–128 characters.
    pub password: String,
    /// The name that others see.
    #[serde(default)]
    pub display_name: Option<String>,
}

/// The answer to [`Register`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Registered {
    /// The new user.
    pub user_id: Uuid,
    /// Where it stands in the log.
    #[schema(value_type = String)]
    pub position: PositionToken,
}

/// `POST /v1/sessions`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogIn {
    /// Username or e-mail address.
    pub login: String,
    /// The password.
    pub password: String,
    /// The device, by an id of its own choice; a new one is made where it is absent.
    #[serde(default)]
    pub device_id: Option<Uuid>,
    /// What its user calls it.
    #[serde(default)]
    pub device_name: Option<String>,
}

/// The answer to [`LogIn`] and [`Refresh`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionTokens {
    /// A JWT for the `Authorization` header.
    pub access_token: String,
    /// When it expires.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub access_expires_at: OffsetDateTime,
    /// Opaque; exchanged once.
    pub refresh_token: String,
    /// When it expires.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub refresh_expires_at: OffsetDateTime,
    /// `Bearer`
    pub token_type: String,
    /// Whose session.
    pub user_id: Uuid,
    /// The session.
    pub session_id: Uuid,
    /// Its device.
    pub device_id: Uuid,
}

/// `POST /v1/sessions/refresh`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Refresh {
    /// The current token.
    pub refresh_token: String,
    /// The session's device.
    pub device_id: Uuid,
}

/// The answer to `POST /v1/ws-tickets`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Ticket {
    /// Good for one upgrade.
    pub ticket: String,
    /// When it expires.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: OffsetDateTime,
}

/// `PATCH /v1/users/me`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChangeProfile {
    /// The name that others see.
    #[serde(default)]
    pub display_name: Option<String>,
}

/// `PUT /v1/users/me/password`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChangePassword {
    /// The one that holds now.
    pub current_password: String,
    /// 8–128 characters.
    pub new_password: String,
}

/// The answer to a command that has nothing else to say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// Where its effect stands in the log.
    #[schema(value_type = String)]
    pub position: PositionToken,
}

/// `POST /v1/conversations`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreateConversation {
    /// The id, where the client chooses it: the idempotency key.
    #[serde(default)]
    pub conversation_id: Option<Uuid>,
    /// Direct or group.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// At most 100 characters; groups alone.
    #[serde(default)]
    pub name: Option<String>,
    /// The others; oneself and doubles are dropped.
    #[serde(default, deserialize_with = "list")]
    pub member_ids: Vec<Uuid>,
    /// What later members see; `all` where absent.
    #[serde(default)]
    pub history: Option<History>,
}

/// The answer to [`CreateConversation`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConversationOpened {
    /// The conversation.
    pub conversation_id: Uuid,
    /// Where it stands in the log.
    #[schema(value_type = String)]
    pub position: PositionToken,
}

/// `PATCH /v1/conversations/{id}`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChangeConversation {
    /// At most 100 characters.
    #[serde(default)]
    pub name: Option<String>,
    /// What members see of the time before them.
    #[serde(default)]
    pub history: Option<History>,
}

/// `PUT /v1/conversations/{id}/members/{user_id}`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SetMember {
    /// The role from now on.
    pub role: Role,
}

/// `POST /v1/conversations/{id}/messages`, and the WebSocket's `send`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SendMessage {
    /// A UUID version 7 of the client's: the idempotency key, for ever.
    pub message_id: Uuid,
    /// 1–16,384 bytes of UTF-8, kept byte for byte.
    pub content: String,
    /// What kind of content it is; `text` where absent.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// A message of this conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Uuid>,
    /// At most 50 members.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<Uuid>,
    /// Attached files.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub file_ids: Vec<Uuid>,
}

/// The answer to [`SendMessage`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MessageSent {
    /// The message.
    pub message_id: Uuid,
    /// Where it was said.
    pub conversation_id: Uuid,
    /// Its number there.
    pub seq: u64,
    /// When it was committed.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub sent_at: OffsetDateTime,
    /// Where it stands in the log.
    #[schema(value_type = String)]
    pub position: PositionToken,
}

/// `PUT /v1/conversations/{id}/receipts/me`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AdvanceReceipt {
    /// Everything up to this `seq` is on this device.
    #[serde(default)]
    pub delivered_to: Option<u64>,
    /// Everything up to this `seq` was read.
    #[serde(default)]
    pub read_to: Option<u64>,
}

/// The answer to [`AdvanceReceipt`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReceiptAdvanced {
    /// Everything up to this `seq` is on a device of the user's.
    pub delivered_to: u64,
    /// Everything up to this `seq` was read.
    pub read_to: u64,
    /// Where that stands in the log.
    #[schema(value_type = String)]
    pub position: PositionToken,
}

/// `PUT /v1/users/me/push-subscriptions/{id}`: a browser's `PushSubscription` as it is in JSON.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Subscribe {
    /// Where its push service takes messages for it.
    pub endpoint: String,
    /// What they are encrypted with.
    pub keys: SubscriptionKeys,
    /// When it ends by itself, in milliseconds since 1970; `expirationTime`, as browsers call it, is as good.
    #[serde(default, alias = "expirationTime")]
    pub expiration_time: Option<f64>,
}

/// The keys of a [`Subscribe`], both in base64url.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionKeys {
    /// The browser's public key on P-256.
    pub p256dh: String,
    /// Its authentication secret, of 16 bytes.
    pub auth: String,
}
