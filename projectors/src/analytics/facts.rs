//! What analytics make of the events of conversations.

use std::sync::Arc;

use schemas::{Body, Event, InitialMember, ReceiptMoved, Record};
use time::OffsetDateTime;
use uuid::Uuid;

/// Something that happened in a conversation.
pub(super) struct Fact<'a> {
    pub(super) conversation_id: Uuid,
    pub(super) shard: u16,
    pub(super) at_ms: i64,
    pub(super) what: What<'a>,
}

pub(super) enum What<'a> {
    Numbered {
        seq: u64,
        change: Change<'a>,
    },
    /// A watermark came to `up_to`; that of reading takes the one of delivery along.
    Moved {
        user_id: Uuid,
        mark: Mark,
        up_to: u64,
    },
}

pub(super) enum Change<'a> {
    Created(&'a [InitialMember]),
    Joined(Uuid),
    Left(Uuid),
    SentBy(Uuid),
    /// It only counts.
    Nothing,
}

/// What a watermark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mark {
    Delivered,
    Read,
}

impl Mark {
    /// The number that stands for it in tables.
    pub(super) fn code(self) -> i16 {
        match self {
            Self::Delivered => 0,
            Self::Read => 1,
        }
    }
}

/// A batch's, in its order.
pub(super) fn of(batch: &[Arc<Record>]) -> Vec<Fact<'_>> {
    batch.iter().filter_map(|record| fact(record)).collect()
}

fn fact(record: &Record) -> Option<Fact<'_>> {
    let fact = |conversation_id, at, what| Fact { conversation_id, shard: record.shard, at_ms: milliseconds(at), what };
    let moved = |moved: &ReceiptMoved, mark| {
        let what = What::Moved { user_id: moved.user_id, mark, up_to: moved.up_to };
        fact(moved.conversation_id, moved.at, what)
    };
    Some(match &record.event {
        Event::Numbered(event) => {
            let change = match &event.body {
                Body::Created(created) => Change::Created(&created.members),
                Body::MemberJoined(joined) => Change::Joined(joined.user_id),
                Body::MemberLeft(left) => Change::Left(left.user_id),
                Body::MessageSent(message) => Change::SentBy(message.sender_id),
                Body::Renamed(_) | Body::SettingsChanged(_) | Body::MemberRoleChanged(_) => Change::Nothing,
            };
            fact(event.conversation_id, event.at, What::Numbered { seq: event.seq, change })
        }
        Event::MessageDelivered(receipt) => moved(receipt, Mark::Delivered),
        Event::MessageRead(receipt) => moved(receipt, Mark::Read),
        Event::UserRegistered(_)
        | Event::UserProfileChanged(_)
        | Event::UserPasswordChanged(_)
        | Event::UserRoleGranted(_)
        | Event::UserRoleRevoked(_)
        | Event::AuditRead(_)
        | Event::SessionStarted(_)
        | Event::SessionRefreshed(_)
        | Event::SessionRevoked(_)
        | Event::SessionReuseDetected(_) => return None,
    })
}

/// Since 1970: what a record says of the time, whatever bus it came by.
pub(super) fn milliseconds(at: OffsetDateTime) -> i64 {
    at.unix_timestamp() * 1000 + i64::from(at.millisecond())
}
