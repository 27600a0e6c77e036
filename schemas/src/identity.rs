//! What a record in Kafka says of itself and of its partition: which event it is, and after which it was published again.

use std::str::FromStr;

use uuid::Uuid;

use crate::binary_mode::{ID, RecordError, SEQUENCE};

/// The header of a record that was published again on request: the request's id.
pub const REPLAY: &str = "ce_replay";
/// Beside it, the last record that had been published for the first time by then: `POSITION/EVENT_ID`. It tells who
/// goes on behind such a record where that is.
pub const HEAD: &str = "parlance-head";

/// The furthest record of a shard in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its position.
    pub position: u64,
    /// Its event's id.
    pub event_id: Uuid,
}

/// What a record carries that is published again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The request.
    pub replay: Uuid,
    /// How far the partition goes.
    pub head: Head,
}

impl Replayed {
    /// The headers that say so.
    pub fn headers(&self) -> [(&'static str, String); 2] {
        let Head { position, event_id } = self.head;
        [(REPLAY, self.replay.to_string()), (HEAD, format!("{position:020}/{event_id}"))]
    }
}

/// Which event a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The event's id.
    pub event_id: Uuid,
    /// Its position in the shard.
    pub position: u64,
    /// Of one that was published again: how far the partition went before it.
    before: Option<Head>,
}

impl Identity {
    /// The furthest record of the shard, up to this one.
    pub fn head(&self) -> Head {
        let own = Head { position: self.position, event_id: self.event_id };
        self.before.filter(|head| head.position > self.position).unwrap_or(own)
    }

    /// How many records are before it at the least, for what it says to be true.
    pub fn least_before(&self) -> u64 {
        let own = self.position.saturating_sub(1);
        self.before.map_or(own, |head| head.position.max(own))
    }
}

/// Which event a record is, by its headers; that tells whether it is one of ours.
///
/// # Errors
/// A record without an id and a position.
pub fn identity<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Identity, RecordError> {
    let (mut id, mut sequence, mut head) = (None, None, None);
    for (name, value) in headers {
        let place = match name {
            ID => &mut id,
            SEQUENCE => &mut sequence,
            HEAD => &mut head,
            _ => continue,
        };
        *place = str::from_utf8(value).ok();
    }
    let before = head
        .and_then(|text: &str| text.split_once('/'))
        .and_then(|(position, id)| Some(Head { position: position.parse().ok()?, event_id: id.parse().ok()? }));
    Ok(Identity { event_id: parsed(ID, id)?, position: parsed(SEQUENCE, sequence)?, before })
}

fn parsed<T: FromStr>(name: &'static str, value: Option<&str>) -> Result<T, RecordError> {
    value.and_then(|value| value.parse().ok()).ok_or(RecordError::Header(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: Uuid = Uuid::from_u128(7);
    const LAST: Uuid = Uuid::from_u128(8);

    fn of(headers: &[(&'static str, String)]) -> Result<Identity, RecordError> {
        identity(headers.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    fn plain(position: u64) -> Vec<(&'static str, String)> {
        vec![(ID, EVENT.to_string()), ("ce_type", "x".into()), (SEQUENCE, format!("{position:020}"))]
    }

    #[test]
    fn a_record_is_the_furthest_itself_unless_it_was_published_again() {
        let first = of(&plain(42)).unwrap();
        assert_eq!((first.head(), first.least_before()), (Head { position: 42, event_id: EVENT }, 41));
        let head = Head { position: 50, event_id: LAST };
        let again = |position| {
            let mut headers = plain(position);
            headers.extend(Replayed { replay: Uuid::nil(), head }.headers());
            of(&headers).unwrap()
        };
        assert_eq!((again(42).position, again(42).head(), again(42).least_before()), (42, head, 50));
        assert_eq!((again(50).head().position, again(50).least_before()), (50, 50));
    }

    #[test]
    fn what_is_not_understood_of_the_furthest_is_as_if_it_were_not_there() {
        for nonsense in ["", "50", "50/", "fifty/00000000-0000-0000-0000-000000000008"] {
            let mut headers = plain(42);
            headers.push((HEAD, nonsense.into()));
            assert_eq!(of(&headers), of(&plain(42)));
        }
    }

    #[test]
    fn one_without_id_or_position_is_none_of_ours() {
        assert_eq!(of(&plain(1)[..2]), Err(RecordError::Header(SEQUENCE)));
        assert_eq!(of(&plain(1)[1..]), Err(RecordError::Header(ID)));
    }
}
