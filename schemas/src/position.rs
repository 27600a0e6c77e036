//! Places in the log, as clients carry them from a command's answer to a query.

use std::fmt;
use std::str::FromStr;

use crate::Topic;
use serde::{Deserialize, Serialize};

/// A place in one shard's log: the event with this position and all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The topic.
    pub topic: Topic,
    /// The shard within the topic.
    pub shard: u16,
    /// 1 for the shard's first event; 0 before it.
    pub position: u64,
}

/// One place or several, as text that is opaque to clients: `c3.1042`, `c3.1042~u0.7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionToken(Vec<Position>);

/// Text that is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position that this server gave out")]
pub struct PositionError;

/// How many places one token can hold: those of every shard of the largest installation, in both topics.
const MAX_PLACES: usize = 2 * 1024;

impl PositionToken {
    /// The places, highest last in each shard.
    pub fn places(&self) -> &[Position] {
        &self.0
    }

    /// Takes in the places of another token, so that this one stands for both.
    pub fn merge(&mut self, other: &Self) {
        for place in &other.0 {
            match self.0.iter_mut().find(|held| (held.topic, held.shard) == (place.topic, place.shard)) {
                Some(held) => held.position = held.position.max(place.position),
                None => self.0.push(*place),
            }
        }
    }
}

impl From<Position> for PositionToken {
    fn from(position: Position) -> Self {
        Self(vec![position])
    }
}

impl FromIterator<Position> for PositionToken {
    fn from_iter<I: IntoIterator<Item = Position>>(places: I) -> Self {
        Self(places.into_iter().collect())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}.{}", self.topic.letter(), self.shard, self.position)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let letter = text.chars().next().ok_or(PositionError)?;
        let topic = Topic::ALL.into_iter().find(|topic| topic.letter() == letter).ok_or(PositionError)?;
        let (shard, position) = text[1..].split_once('.').ok_or(PositionError)?;
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !number(shard) || !number(position) {
            return Err(PositionError);
        }
        let shard = shard.parse().map_err(|_| PositionError)?;
        // PostgreSQL's bigint is the log's; what lies beyond it was never given out.
        let position = position.parse::<i64>().map_err(|_| PositionError)?;
        Ok(Self { topic, shard, position: position.cast_unsigned() })
    }
}

impl fmt::Display for PositionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, place) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("~")?;
            }
            place.fmt(f)?;
        }
        Ok(())
    }
}

impl FromStr for PositionToken {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let places = text.split('~').take(MAX_PLACES + 1).map(str::parse).collect::<Result<Vec<_>, _>>()?;
        if places.len() > MAX_PLACES { Err(PositionError) } else { Ok(Self(places)) }
    }
}

/// Serde for types whose JSON is their text.
macro_rules! serde_by_text {
    ($($type:ty),+) => {
        $(
            impl Serialize for $type {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }

            impl<'de> Deserialize<'de> for $type {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                }
            }
        )+
    };
}
serde_by_text!(Position, PositionToken);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens() -> impl Strategy<Value = PositionToken> {
        let place = (0usize..2, prop_oneof![0u16..3, any::<u16>()], 0u64..(1 << 62))
            .prop_map(|(topic, shard, position)| Position { topic: Topic::ALL[topic], shard, position });
        prop::collection::vec(place, 1..20).prop_map(PositionToken)
    }

    proptest! {
        #[test]
        fn comes_back_from_its_text(token in tokens()) {
            prop_assert_eq!(token.to_string().parse::<PositionToken>().unwrap(), token);
        }

        #[test]
        fn merged_it_stands_for_both(one in tokens(), other in tokens()) {
            let mut merged = one.clone();
            merged.merge(&other);
            let reached = |token: &PositionToken, place: &Position| {
                token.places().iter().any(|held| {
                    (held.topic, held.shard) == (place.topic, place.shard) && held.position >= place.position
                })
            };
            prop_assert!(one.places().iter().chain(other.places()).all(|place| reached(&merged, place)));
            prop_assert!(merged.places().iter().all(|place| one.places().contains(place) || other.places().contains(place)));
        }

        #[test]
        fn never_panics_on_text(text in ".{0,40}") {
            let _ = text.parse::<PositionToken>();
        }
    }

    #[test]
    fn refuses_what_it_never_writes() {
        for text in ["", "c", "c1", "c1.", "x1.2", "c+1.2", "c1.2~", "c99999.1", "c1.99999999999999999999"] {
            assert!(text.parse::<PositionToken>().is_err(), "{text}");
        }
    }
}
