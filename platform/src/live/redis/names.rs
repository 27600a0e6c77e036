//! The names of channels in Redis.

use uuid::Uuid;

use crate::live::Channel;
use crate::redis::Redis;

/// Names channels.
pub(super) struct Names {
    user: String,
    conversation: String,
}

impl Names {
    pub(super) fn new(redis: &Redis) -> Self {
        Self { user: redis.key("live:{user:"), conversation: redis.key("live:{conversation:") }
    }

    pub(super) fn name(&self, channel: Channel) -> String {
        match channel {
            Channel::User(id) => format!("{}{id}}}", self.user),
            Channel::Conversation(id) => format!("{}{id}}}", self.conversation),
        }
    }

    /// The channel of a name, if it is one of ours.
    pub(super) fn channel(&self, name: &[u8]) -> Option<Channel> {
        let name = str::from_utf8(name).ok()?.strip_suffix('}')?;
        let id = |prefix: &str| name.strip_prefix(prefix).and_then(|id| Uuid::parse_str(id).ok());
        id(&self.user).map(Channel::User).or_else(|| id(&self.conversation).map(Channel::Conversation))
    }
}
