//! What can be asked of a conversation, and why it is refused.

use uuid::Uuid;

use super::{Created, History, Role};

/// A command to a conversation; `by` is who asks.
#[derive(Clone, Debug)]
pub enum ConversationCommand {
    /// Open it.
    Create(Created),
    /// Change what is given, keep the rest.
    Change {
        /// Who asks.
        by: Uuid,
        /// The new name.
        name: Option<String>,
        /// What members see of the time before them.
        history: Option<History>,
    },
    /// Add a member, or give one another role.
    SetMember {
        /// Who asks.
        by: Uuid,
        /// Whom it concerns.
        user_id: Uuid,
        /// The role from now on.
        role: Role,
        /// The number that the event gets, if one is made.
        next_seq: u64,
    },
    /// Remove a member, or leave.
    RemoveMember {
        /// Who asks.
        by: Uuid,
        /// Whom it concerns.
        user_id: Uuid,
    },
}

/// Why a command to a conversation was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConversationRefusal {
    /// There is none, or the caller never was in it: the two must not be told apart.
    #[error("there is no such conversation")]
    Unknown,
    /// The caller was a member once.
    #[error("you are no longer a member of this conversation")]
    FormerMember,
    /// The caller's role does not allow it.
    #[error("your role does not allow this")]
    Role,
    /// The id is in use for something else.
    #[error("this conversation id is in use with other content")]
    Exists,
    /// A direct conversation has no name and keeps its two members.
    #[error("a direct conversation has no name and keeps its two members")]
    Direct,
    /// The last owner cannot go while others remain, nor step down.
    #[error("the last owner cannot leave while others remain, nor step down")]
    LastOwner,
    /// The group has as many members as it can.
    #[error("the group is full: it has {MAX_MEMBERS} members")]
    Full,
}

/// How many members a group can have.
pub const MAX_MEMBERS: usize = 10_000;
