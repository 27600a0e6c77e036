//! Answers to queries.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{Kind, Message, PositionToken, Role, UserRole, rfc3339_ms};

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The page's items.
    pub items: Vec<T>,
    /// Where the next page begins; null at the end.
    pub next_cursor: Option<String>,
}

/// A user as others see them; `email` only in `me`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// The user.
    pub user_id: Uuid,
    /// The name to log in with; null once erased.
    pub username: Option<String>,
    /// The name that others see.
    pub display_name: Option<String>,
    /// The avatar's file.
    pub avatar_file_id: Option<Uuid>,
    /// When they registered.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    /// When they were last connected, where known.
    #[serde(with = "rfc3339_ms::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_seen: Option<OffsetDateTime>,
    /// As given at registration; only to the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// What the user may do beside what every user may; only to the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<UserRole>>,
}

/// A session of one's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// The session.
    pub session_id: Uuid,
    /// Its device.
    pub device_id: Uuid,
    /// What its user calls the device.
    pub device_name: Option<String>,
    /// When it was started.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    /// When it was last started or refreshed.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub last_seen_at: OffsetDateTime,
    /// Whether it is the one that asks.
    pub current: bool,
}

/// A push subscription of one's own, without what others could push by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PushSubscription {
    /// The subscription.
    pub subscription_id: Uuid,
    /// The origin of its push service.
    pub service: String,
    /// When it was first made known.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    /// When it ends unless it is put again.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: OffsetDateTime,
    /// Whether it belongs to the session that asks.
    pub current: bool,
}

/// `GET /v1/push/vapid-public-key`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VapidPublicKey {
    /// What browsers subscribe with as `applicationServerKey`, in base64url.
    pub public_key: String,
}

/// A conversation of one's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Conversation {
    /// The conversation.
    pub conversation_id: Uuid,
    /// Direct or group.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The name, of groups alone.
    pub name: Option<String>,
    /// One's own role.
    pub role: Role,
    /// How many are in it.
    pub member_count: u64,
    /// The newest message that one may see.
    pub last_message: Option<MessageView>,
    /// The number of the last event.
    pub last_seq: u64,
    /// Others' messages, not deleted, that were not read.
    pub unread: u64,
    /// Everything up to this `seq` is on a device of one's own.
    pub delivered_to: u64,
    /// Everything up to this `seq` was read.
    pub read_to: u64,
    /// When its last numbered event happened.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: OffsetDateTime,
}

/// A member of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// Who.
    pub user_id: Uuid,
    /// The name to log in with; null once erased.
    pub username: Option<String>,
    /// The name that others see.
    pub display_name: Option<String>,
    /// As what.
    pub role: Role,
    /// Since when.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub joined_at: OffsetDateTime,
}

/// A message as it stands now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MessageView {
    /// The message.
    #[serde(flatten)]
    pub message: Message,
    /// Who reacted with what.
    pub reactions: Vec<Reaction>,
    /// How far it has got.
    pub status: Delivery,
}

/// How far a message has got with all others who were there when it was sent and still are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Committed.
    Sent,
    /// On a device of each.
    Delivered,
    /// Read by each.
    Read,
}

/// One emoji under a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Reaction {
    /// Compared byte for byte.
    pub emoji: String,
    /// How many reacted with it.
    pub count: u64,
    /// Who.
    pub user_ids: Vec<Uuid>,
}

/// How far one member has got with one message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberState {
    /// The member.
    pub user_id: Uuid,
    /// How far.
    pub state: Delivery,
    /// When it was delivered, where known.
    #[serde(with = "rfc3339_ms::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub delivered_at: Option<OffsetDateTime>,
    /// When it was read, where known.
    #[serde(with = "rfc3339_ms::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub read_at: Option<OffsetDateTime>,
}

/// A member's watermarks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberReceipt {
    /// The member.
    pub user_id: Uuid,
    /// Everything up to this `seq` is on a device of theirs.
    pub delivered_to: u64,
    /// Everything up to this `seq` was read by them.
    pub read_to: u64,
}

/// An entry of the audit: who did what to what, when, from where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Where the event stands.
    #[schema(value_type = String)]
    pub position: PositionToken,
    /// The event.
    pub event_id: Uuid,
    /// When.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
    /// The event's type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Who did it; null where no user did.
    pub actor_id: Option<Uuid>,
    /// The actor's username, where known.
    pub actor_username: Option<String>,
    /// What it was done to: `user`, `session`, `conversation` or `message`.
    pub object_type: String,
    /// Which.
    pub object_id: Uuid,
    /// In which conversation.
    pub conversation_id: Option<Uuid>,
    /// By which session, where known.
    pub session_id: Option<Uuid>,
    /// By which device, where the event says.
    pub device_id: Option<Uuid>,
    /// From which network address, where the event says: those of the session do.
    pub address: Option<String>,
    /// What program the client said that it was, where the event says.
    pub user_agent: Option<String>,
    /// The same for all that one request caused.
    pub correlation_id: String,
}

/// `GET /health/live` and `/health/ready`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// The worst of the dependencies'.
    pub status: HealthStatus,
    /// Those in use, by name.
    pub dependencies: BTreeMap<String, DependencyHealth>,
}

/// How well a process or a dependency is, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// All is well.
    Ok,
    /// Something works less than it should.
    Degraded,
    /// Nothing works.
    Down,
}

/// How well one dependency is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DependencyHealth {
    /// How well.
    pub status: HealthStatus,
    /// In words.
    pub detail: String,
}
