//! The event topics.

use serde::{Deserialize, Serialize};

/// A topic of events; each has the same count of shards, and a partition a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Topic {
    /// Users and their sessions; the ordering key is the user.
    #[serde(rename = "parlance.users.v1")]
    Users,
    /// Everything in conversations; the ordering key is the conversation.
    #[serde(rename = "parlance.conversations.v1")]
    Conversations,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Users, Self::Conversations];

    /// The name, as in Kafka.
    pub fn name(self) -> &'static str {
        match self {
            Self::Users => "parlance.users.v1",
            Self::Conversations => "parlance.conversations.v1",
        }
    }

    /// The number that stands for the topic in tables.
    pub fn code(self) -> i16 {
        match self {
            Self::Users => 0,
            Self::Conversations => 1,
        }
    }

    /// The topic of that number.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.code() == code)
    }

    /// The letter that stands for the topic in a position.
    pub(crate) fn letter(self) -> char {
        match self {
            Self::Users => 'u',
            Self::Conversations => 'c',
        }
    }
}
