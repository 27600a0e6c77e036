//! What happened to a conversation.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::kernel::{events, from_bodies};

events! {
    /// An event of a conversation, each numbered. The conversation's id is the aggregate's and the ordering key.
    pub enum ConversationEvent {
        /// It was opened; always number 1.
        "conversation.created", 1 => Created(Created),
        /// It has another name.
        "conversation.renamed", 1 => Renamed(Renamed),
        /// What members see of the time before them changed.
        "conversation.settings_changed", 1 => SettingsChanged(SettingsChanged),
        /// Somebody came in later.
        "conversation.member_joined", 1 => MemberJoined(MemberJoined),
        /// Somebody left or was removed.
        "conversation.member_left", 1 => MemberLeft(MemberLeft),
        /// A member has another role.
        "conversation.member_role_changed", 1 => MemberRoleChanged(MemberRoleChanged),
    }
}

from_bodies!(ConversationEvent: Created, Renamed, SettingsChanged, MemberJoined, MemberLeft, MemberRoleChanged);

/// The two kinds of conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Exactly two, one conversation a pair, for ever.
    Direct,
    /// Any number, with roles.
    Group,
}

/// What members see of the time before they joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// Everything.
    #[default]
    All,
    /// Nothing.
    SinceJoin,
}

/// What a member may do; a later variant may do more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Take part.
    Member,
    /// Also rename, set, add, remove, and make members and admins.
    Admin,
    /// Also set any role.
    Owner,
}

/// It was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// Direct or group.
    pub kind: Kind,
    /// The name, of groups alone.
    pub name: Option<String>,
    /// What later members see.
    pub history: History,
    /// All first members, its creator (the owner) first.
    pub members: Vec<(Uuid, Role)>,
    /// Who opened it.
    pub by: Uuid,
}

/// It has another name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Renamed {
    /// The new name.
    pub name: String,
    /// Who renamed it.
    pub by: Uuid,
}

/// What members see of the time before them changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettingsChanged {
    /// The new setting, at once and for all.
    pub history: History,
    /// Who changed it.
    pub by: Uuid,
}

/// Somebody came in later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberJoined {
    /// Who came.
    pub user_id: Uuid,
    /// As what.
    pub role: Role,
    /// Who added them.
    pub by: Uuid,
    /// The event's own number, where the member's watermarks start.
    pub joined_seq: u64,
}

/// Somebody left or was removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberLeft {
    /// Who left.
    pub user_id: Uuid,
    /// Who removed them; themselves if they left.
    pub by: Uuid,
}

/// A member has another role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberRoleChanged {
    /// Whose role.
    pub user_id: Uuid,
    /// The new one.
    pub role: Role,
    /// Who set it.
    pub by: Uuid,
}
