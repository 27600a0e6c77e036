//! The log's names for topics and the public ones.

use domain::kernel::LogTopic;
use schemas::Topic;

/// The public topic of a shard's events.
pub(crate) fn public(topic: LogTopic) -> Topic {
    match topic {
        LogTopic::Users => Topic::Users,
        LogTopic::Conversations => Topic::Conversations,
    }
}

/// The log's topic behind a public one.
pub(crate) fn private(topic: Topic) -> LogTopic {
    match topic {
        Topic::Users => LogTopic::Users,
        Topic::Conversations => LogTopic::Conversations,
    }
}
