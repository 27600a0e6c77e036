//! What is said on the channels of Redis: a version, a kind, and the rest without padding, numbers in big-endian.

use std::sync::Arc;

use schemas::{Event, Record, Topic};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::live::{Channel, Connected, Hint};

/// What is of another version is passed over: gateway and fan-out may be of two releases for a while.
const VERSION: u8 = 1;

const HINT: u8 = 0;
const CONNECTED: u8 = 1;

const CONVERSATION: u8 = 0;
const USER: u8 = 1;

/// What tells a hint from others: one that comes by several channels is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    channel: Channel,
    topic: Topic,
    shard: u16,
    position: u64,
}

/// Something that was said.
#[derive(Debug)]
pub(super) enum Said<'a> {
    /// A hint, its record still to be read.
    Hint(Identity, Unread<'a>),
    /// A device connected.
    Connected(Connected),
}

/// A record that is read only where it has not come before.
#[derive(Debug)]
pub(super) struct Unread<'a>(Reader<'a>);

/// The record that was written last: one that concerns several channels comes several times in a row.
#[derive(Default)]
pub(super) struct Writer {
    last: Option<(Arc<Record>, Vec<u8>)>,
}

impl Writer {
    /// The bytes of a hint; the record in them is encoded once. `None` stands for one that has no JSON, which there is
    /// none of.
    pub(super) fn hint(&mut self, hint: &Hint) -> Option<Vec<u8>> {
        if self.last.as_ref().is_none_or(|(record, _)| !Arc::ptr_eq(record, &hint.record)) {
            self.last = Some((hint.record.clone(), body(&hint.record)?));
        }
        let (record, body) = self.last.as_ref()?;
        let mut bytes = Vec::with_capacity(body.len() + 32);
        let (kind, id) = match hint.channel {
            Channel::Conversation(id) => (CONVERSATION, id),
            Channel::User(id) => (USER, id),
        };
        bytes.extend([VERSION, HINT, kind]);
        bytes.extend(id.as_bytes());
        bytes.extend(record.topic.code().to_be_bytes());
        bytes.extend(record.shard.to_be_bytes());
        bytes.extend(record.position.to_be_bytes());
        bytes.extend(body);
        Some(bytes)
    }
}

/// The bytes of a new connection.
pub(super) fn connected(connected: Connected) -> Vec<u8> {
    let mut bytes = vec![VERSION, CONNECTED];
    for id in [connected.user_id, connected.device_id, connected.connection_id] {
        bytes.extend(id.as_bytes());
    }
    bytes
}

/// What of a record does not tell it from others.
fn body(record: &Record) -> Option<Vec<u8>> {
    let json = record.event.to_json().ok()?;
    let mut bytes = Vec::with_capacity(json.len() + 128);
    bytes.extend(record.event_id.as_bytes());
    bytes.extend(record.key.as_bytes());
    bytes.extend(record.at.unix_timestamp_nanos().to_be_bytes());
    for text in [&record.correlation, &record.trace] {
        short(&mut bytes, text.as_deref().unwrap_or_default())?;
    }
    bytes.extend(record.causation.unwrap_or_default().as_bytes());
    short(&mut bytes, record.event.event_type())?;
    bytes.extend(json);
    Some(bytes)
}

fn short(bytes: &mut Vec<u8>, text: &str) -> Option<()> {
    bytes.extend(u16::try_from(text.len()).ok()?.to_be_bytes());
    bytes.extend(text.as_bytes());
    Some(())
}

/// Reads what was said; `None` stands for what cannot be read here.
pub(super) fn read(bytes: &[u8]) -> Option<Said<'_>> {
    let mut reader = Reader(bytes);
    if reader.array()? != [VERSION] {
        return None;
    }
    match reader.array()? {
        [HINT] => {
            let kind = reader.array()?;
            let id = reader.id()?;
            let channel = match kind {
                [CONVERSATION] => Channel::Conversation(id),
                [USER] => Channel::User(id),
                _ => return None,
            };
            let topic = Topic::from_code(i16::from_be_bytes(reader.array()?))?;
            let shard = u16::from_be_bytes(reader.array()?);
            let position = u64::from_be_bytes(reader.array()?);
            Some(Said::Hint(Identity { channel, topic, shard, position }, Unread(reader)))
        }
        [CONNECTED] => {
            let [user_id, device_id, connection_id] = [reader.id()?, reader.id()?, reader.id()?];
            Some(Said::Connected(Connected { user_id, device_id, connection_id }))
        }
        _ => None,
    }
}

impl Unread<'_> {
    /// The hint; `None` where its record cannot be read here.
    pub(super) fn read(self, identity: Identity) -> Option<Hint> {
        let Self(mut reader) = self;
        let Identity { channel, topic, shard, position } = identity;
        let (event_id, key) = (reader.id()?, reader.id()?);
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from_be_bytes(reader.array()?)).ok()?;
        let [correlation, trace] = [reader.short()?, reader.short()?];
        let causation = reader.id()?;
        let kind = reader.short()?;
        let event = Event::from_json(kind, reader.0).ok()?;
        let text = |text: &str| Some(text).filter(|text| !text.is_empty()).map(Into::into);
        let record = Record {
            topic,
            shard,
            position,
            event_id,
            key,
            at,
            correlation: text(correlation),
            causation: Some(causation).filter(|id| !id.is_nil()),
            trace: text(trace),
            session: None,
            event,
        };
        Some(Hint { channel, record: Arc::new(record), audience: None })
    }
}

#[derive(Debug)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn id(&mut self) -> Option<Uuid> {
        self.array().map(Uuid::from_bytes)
    }

    fn short(&mut self) -> Option<&'a str> {
        let length = u16::from_be_bytes(self.array()?);
        let (text, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        str::from_utf8(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::live::contract::{hint, record};

    fn back(bytes: &[u8]) -> Option<Hint> {
        match read(bytes)? {
            Said::Hint(identity, unread) => unread.read(identity),
            Said::Connected(_) => None,
        }
    }

    #[test]
    fn a_hint_comes_back_whole() {
        let mut writer = Writer::default();
        let bare = Arc::new(record(7, 1));
        let full = Arc::new(Record {
            correlation: Some("request 7".into()),
            causation: Some(Uuid::from_u128(9)),
            trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
            session: None,
            ..record(7, 2)
        });
        for record in [bare, full] {
            for channel in [Channel::User(Uuid::from_u128(1)), Channel::Conversation(Uuid::from_u128(2))] {
                let hint = hint(channel, &record);
                let read = back(&writer.hint(&hint).unwrap()).unwrap();
                assert_eq!((read.channel, &*read.record), (channel, &*record));
            }
        }
    }

    #[test]
    fn a_connection_comes_back_and_other_versions_are_passed_over() {
        let [user_id, device_id, connection_id] = [1, 2, 3].map(Uuid::from_u128);
        let device = Connected { user_id, device_id, connection_id };
        let mut bytes = connected(device);
        assert!(matches!(read(&bytes), Some(Said::Connected(read)) if read == device));
        bytes[0] = VERSION + 1;
        assert!(read(&bytes).is_none());
    }

    proptest! {
        #[test]
        fn never_panics_on_what_others_say(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..3, cut in 0usize..300) {
            let _ = back(&bytes);
            let mut framed = vec![VERSION, kind];
            framed.extend(&bytes);
            let _ = back(&framed);
            let whole = Writer::default().hint(&hint(Channel::User(Uuid::nil()), &Arc::new(record(1, 1)))).unwrap();
            let _ = back(&whole[..cut.min(whole.len())]);
        }
    }
}
