//! Where to begin in one shard.

use std::str::FromStr;

use schemas::Topic;

/// `TOPIC/SHARD:N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct From {
    pub(super) topic: Topic,
    pub(super) shard: u16,
    pub(super) position: u64,
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = || {
            let (topic, rest) = text.split_once('/')?;
            let (shard, position) = rest.split_once(':')?;
            let topic = Topic::from_name(topic)?;
            Some(Self { topic, shard: shard.parse().ok()?, position: position.parse().ok()? })
        };
        parts().ok_or_else(|| "expected TOPIC/SHARD:N, such as parlance.conversations.v1/3:1042".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_topic_a_shard_and_a_position() {
        let place = From { topic: Topic::Users, shard: 3, position: 42 };
        assert_eq!("parlance.users.v1/3:42".parse(), Ok(place));
        for nonsense in
            ["", "parlance.users.v1", "parlance.users.v1/3", "parlance.users.v2/3:42", "parlance.users.v1/x:1"]
        {
            assert!(nonsense.parse::<From>().unwrap_err().starts_with("expected TOPIC/SHARD:N"), "{nonsense}");
        }
    }
}
