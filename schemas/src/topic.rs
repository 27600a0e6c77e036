//! The event topics, and how each is kept in Kafka: the one table from which they are made, checked and described.

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

/// A setting that a topic has to have in Kafka, whatever the brokers' defaults are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TopicSetting {
    /// Its name there.
    pub name: &'static str,
    /// The value that it has to have.
    pub value: &'static str,
    /// Why no other will do.
    pub reason: &'static str,
}

/// Of every topic of events. None of them is ever compacted.
const KEPT_WHOLE: &[TopicSetting] = &[
    TopicSetting {
        name: "cleanup.policy",
        value: "delete",
        reason: "never compacted: of all that happens under a key the last record says the least, and without the others \
                 nobody could tell that nothing is missing",
    },
    TopicSetting {
        name: "retention.ms",
        value: "-1",
        reason: "kept for ever: a consumer may start from nothing at any time, and finds position 1",
    },
    TopicSetting {
        name: "retention.bytes",
        value: "-1",
        reason: "kept whole however large it grows, for the same reason; the disk is to be watched instead",
    },
];

impl Topic {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Users, Self::Conversations];

    /// Why there is a partition a shard, and never another count.
    pub const PARTITIONS_REASON: &'static str = "one a shard, set explicitly: a position then stands in one partition for ever, \
                                         and another count would part what has one order";

    /// The name, as in Kafka.
    pub fn name(self) -> &'static str {
        match self {
            Self::Users => "parlance.users.v1",
            Self::Conversations => "parlance.conversations.v1",
        }
    }

    /// The topic of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == name)
    }

    /// What it is about, in words.
    pub fn summary(self) -> &'static str {
        match self {
            Self::Users => "Users and their sessions.",
            Self::Conversations => "Everything in conversations: members, messages, receipts.",
        }
    }

    /// The member of its records' data that is their ordering key.
    pub fn key(self) -> &'static str {
        match self {
            Self::Users => "user_id",
            Self::Conversations => "conversation_id",
        }
    }

    /// What it has to be set to in Kafka, each with the reason.
    pub fn settings(self) -> &'static [TopicSetting] {
        match self {
            Self::Users | Self::Conversations => KEPT_WHOLE,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::tests::samples;

    #[test]
    fn no_topic_of_events_is_compacted_or_ever_loses_a_record() {
        for topic in Topic::ALL {
            let value = |name| topic.settings().iter().find(|setting| setting.name == name).map(|found| found.value);
            assert_eq!(
                ["cleanup.policy", "retention.ms", "retention.bytes"].map(value),
                [Some("delete"), Some("-1"), Some("-1")],
                "{topic:?}"
            );
            assert!(topic.settings().iter().all(|setting| !setting.reason.is_empty()));
        }
    }

    #[test]
    fn names_and_numbers_lead_back_and_every_event_carries_its_key() {
        for topic in Topic::ALL {
            assert_eq!((Topic::from_name(topic.name()), Topic::from_code(topic.code())), (Some(topic), Some(topic)));
        }
        assert_eq!(Topic::from_name("parlance.users.v2"), None);
        for event in samples() {
            assert!(event.data().unwrap()[event.topic().key()].is_string(), "{}", event.event_type());
        }
    }
}
