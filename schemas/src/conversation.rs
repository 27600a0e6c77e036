//! Public events of conversations, and the message as all see it.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::catalogue::{self, EventType};
use crate::rfc3339_ms;

/// The two kinds of conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Exactly two, one conversation a pair.
    Direct,
    /// Any number, with roles.
    Group,
}

/// What members see of the time before they joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// Everything.
    All,
    /// Nothing.
    SinceJoin,
}

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Take part.
    Member,
    /// Also rename, set, add and remove.
    Admin,
    /// Also set any role.
    Owner,
}

macro_rules! text {
    ($type:ty: $($variant:ident = $text:literal),+) => {
        impl $type {
            /// The text that stands for it in JSON and in tables.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// What the text stands for.
            pub fn from_text(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}
text!(Kind: Direct = "direct", Group = "group");
text!(History: All = "all", SinceJoin = "since_join");
text!(Role: Member = "member", Admin = "admin", Owner = "owner");

/// A numbered event: every member's devices get each of a conversation, by `seq`, without a gap.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbered {
    /// The conversation.
    pub conversation_id: Uuid,
    /// Counts from 1, without a gap.
    pub seq: u64,
    /// When it happened.
    pub at: OffsetDateTime,
    /// What happened.
    pub body: Body,
}

/// What a numbered event says, by its type.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Body {
    /// `conversation.created`
    Created(ConversationCreated),
    /// `conversation.renamed`
    Renamed(ConversationRenamed),
    /// `conversation.settings_changed`
    SettingsChanged(SettingsChanged),
    /// `conversation.member_joined`
    MemberJoined(MemberJoined),
    /// `conversation.member_left`
    MemberLeft(MemberLeft),
    /// `conversation.member_role_changed`
    MemberRoleChanged(MemberRoleChanged),
    /// `message.sent`
    MessageSent(Box<Message>),
}

impl Body {
    /// What is known of the event's type.
    pub fn kind(&self) -> &'static EventType {
        match self {
            Self::Created(_) => &catalogue::CONVERSATION_CREATED,
            Self::Renamed(_) => &catalogue::CONVERSATION_RENAMED,
            Self::SettingsChanged(_) => &catalogue::CONVERSATION_SETTINGS_CHANGED,
            Self::MemberJoined(_) => &catalogue::CONVERSATION_MEMBER_JOINED,
            Self::MemberLeft(_) => &catalogue::CONVERSATION_MEMBER_LEFT,
            Self::MemberRoleChanged(_) => &catalogue::CONVERSATION_MEMBER_ROLE_CHANGED,
            Self::MessageSent(_) => &catalogue::MESSAGE_SENT,
        }
    }

    /// The event's type.
    pub fn event_type(&self) -> &'static str {
        self.kind().name
    }
}

/// `conversation.created`: always number 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConversationCreated {
    /// Direct or group.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The name, of groups alone.
    pub name: Option<String>,
    /// What later members see.
    pub history: History,
    /// All first members; no `member_joined` comes for these.
    pub members: Vec<InitialMember>,
    /// Who opened it.
    pub by: Uuid,
}

/// One of those a conversation was opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InitialMember {
    /// Who.
    pub user_id: Uuid,
    /// As what.
    pub role: Role,
}

/// `conversation.renamed`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConversationRenamed {
    /// The new name.
    pub name: String,
    /// Who renamed it.
    pub by: Uuid,
}

/// `conversation.settings_changed`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SettingsChanged {
    /// What members see of the time before them, at once and for all.
    pub history: History,
    /// Who changed it.
    pub by: Uuid,
}

/// `conversation.member_joined`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberJoined {
    /// Who came.
    pub user_id: Uuid,
    /// As what.
    pub role: Role,
    /// Who added them.
    pub by: Uuid,
}

/// `conversation.member_left`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberLeft {
    /// Who left.
    pub user_id: Uuid,
    /// Who removed them; themselves if they left.
    pub by: Uuid,
}

/// `conversation.member_role_changed`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberRoleChanged {
    /// Whose role.
    pub user_id: Uuid,
    /// The new one.
    pub role: Role,
    /// Who set it.
    pub by: Uuid,
}

/// `message.sent`, and a message wherever it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// The id that its client chose.
    pub message_id: Uuid,
    /// The conversation.
    pub conversation_id: Uuid,
    /// That of its `message.sent`.
    pub seq: u64,
    /// Who said it.
    pub sender_id: Uuid,
    /// What kind of content it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// UTF-8, byte for byte as sent; null where it may not be seen.
    pub content: Option<String>,
    /// Attached files.
    pub file_ids: Vec<Uuid>,
    /// The message that it answers.
    pub reply_to: Option<Uuid>,
    /// The members that it names.
    pub mentions: Vec<Uuid>,
    /// When it was committed.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    /// When it was last edited.
    #[serde(with = "rfc3339_ms::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub edited_at: Option<OffsetDateTime>,
    /// Whether it was deleted.
    pub deleted: bool,
}

/// `message.delivered` and `message.read`: a member's watermark moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReceiptMoved {
    /// The conversation.
    pub conversation_id: Uuid,
    /// Whose watermark.
    pub user_id: Uuid,
    /// The device that moved it; null if read without one.
    pub device_id: Option<Uuid>,
    /// The `seq` that this event's watermark moved to.
    pub up_to: u64,
    /// Everything up to this `seq` is on a device of theirs.
    pub delivered_to: u64,
    /// Everything up to this `seq` was read by them.
    pub read_to: u64,
    /// When.
    #[serde(with = "rfc3339_ms")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
}
