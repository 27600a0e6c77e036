//! Conversations: opening and changing them, members, messages, receipts.

pub(crate) mod advance_receipt;
pub(crate) mod change;
pub(crate) mod open;
pub(crate) mod remove_member;
pub(crate) mod send_message;
pub(crate) mod set_member;

use domain::conversation::{History, Role};
use platform::auth::Caller;
use platform::http::PathId;
use serde::{Deserialize, Deserializer, de};
use uuid::Uuid;

/// A member of a conversation, in a path.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct MemberPath {
    pub(crate) conversation_id: PathId,
    pub(crate) user_id: Who,
}

/// `{user_id or me}` in a path.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    /// The caller.
    Me,
    /// This user.
    User(Uuid),
}

impl Who {
    /// Whom it means for this caller.
    pub(crate) fn id(self, caller: &Caller) -> Uuid {
        match self {
            Self::Me => caller.user_id,
            Self::User(id) => id,
        }
    }
}

impl<'de> Deserialize<'de> for Who {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "me" {
            return Ok(Self::Me);
        }
        PathId::parse(&text)
            .map(|PathId(id)| Self::User(id))
            .ok_or_else(|| de::Error::custom("expected a UUID or `me`"))
    }
}

/// The domain's word for it.
fn history(given: schemas::History) -> History {
    match given {
        schemas::History::All => History::All,
        schemas::History::SinceJoin => History::SinceJoin,
    }
}

/// The domain's word for it.
fn role(given: schemas::Role) -> Role {
    match given {
        schemas::Role::Member => Role::Member,
        schemas::Role::Admin => Role::Admin,
        schemas::Role::Owner => Role::Owner,
    }
}
