//! Numbered events and receipts as frames: encoded once, shared by every device that gets them.

use std::sync::Arc;

use bytes::Bytes;
use schemas::ws::ServerFrame;
use schemas::{Body, Numbered, Position, ReceiptMoved};
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::frame::{append_text_frame, text_frame};
use crate::gateway::traced::Push;

/// A numbered event, ready to be written to any socket.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// The conversation.
    pub(crate) conversation_id: Uuid,
    /// Its number there.
    pub(crate) seq: u64,
    /// What the gateway itself needs to know of it.
    pub(crate) about: About,
    /// The whole WebSocket frame.
    pub(crate) frame: Bytes,
    /// Where it came by the live bus and somebody looks at its trace.
    pub(crate) push: Option<Arc<Push>>,
}

/// What an event means for who gets the next ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// Nothing.
    Other,
    /// The conversation begins.
    Created,
    /// This user came.
    Joined(Uuid),
    /// This user is no longer there.
    Left(Uuid),
}

impl Event {
    /// Encodes an event of the live bus.
    pub(crate) fn live(numbered: &Numbered, place: Position, push: Option<Arc<Push>>) -> Self {
        let Numbered { conversation_id, seq, at, ref body } = *numbered;
        let about = match body {
            Body::Created(_) => About::Created,
            Body::MemberJoined(joined) => About::Joined(joined.user_id),
            Body::MemberLeft(left) => About::Left(left.user_id),
            Body::Renamed(_) | Body::SettingsChanged(_) | Body::MemberRoleChanged(_) | Body::MessageSent(_) => {
                About::Other
            }
        };
        let head = EventHead { conversation_id, seq, place, at, event: body.event_type() };
        Self { conversation_id, seq, about, frame: text_frame(|out| head.write(out, body)), push }
    }
}

/// What every event's frame begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventHead<'a> {
    /// The conversation.
    pub(crate) conversation_id: Uuid,
    /// Its number there.
    pub(crate) seq: u64,
    /// Its place in the log.
    pub(crate) place: Position,
    /// When it happened.
    pub(crate) at: OffsetDateTime,
    /// Its type.
    pub(crate) event: &'a str,
}

impl EventHead<'_> {
    /// Appends the whole frame.
    pub(crate) fn append(&self, out: &mut Vec<u8>, data: &(impl Serialize + ?Sized)) {
        append_text_frame(out, |out| self.write(out, data));
    }

    fn write<D: Serialize + ?Sized>(&self, out: &mut Vec<u8>, data: &D) {
        let Self { conversation_id, seq, place: position, at, event } = *self;
        json(out, &ServerFrame::Event { conversation_id, seq, position, at, event, data });
    }
}

/// A member's watermarks, ready to be written to any socket.
#[derive(Clone, Debug)]
pub(crate) struct Receipt {
    /// The conversation.
    pub(crate) conversation_id: Uuid,
    /// Whose.
    pub(crate) user_id: Uuid,
    /// On a device of theirs.
    pub(crate) delivered_to: u64,
    /// Read by them.
    pub(crate) read_to: u64,
    /// The device that acked up to this number, where it is that which moved them.
    pub(crate) acked: Option<(Uuid, u64)>,
    /// Where the log tells of it; absent where watermarks were read as they stand.
    pub(crate) place: Option<Position>,
    /// The whole WebSocket frame.
    pub(crate) frame: Bytes,
}

impl Receipt {
    /// Encodes watermarks.
    pub(crate) fn new(
        conversation_id: Uuid,
        user_id: Uuid,
        (delivered_to, read_to): (u64, u64),
        at: OffsetDateTime,
    ) -> Self {
        let frame: ServerFrame<'_, ()> = ServerFrame::Receipt { conversation_id, user_id, delivered_to, read_to, at };
        let frame = text_frame(|out| json(out, &frame));
        Self { conversation_id, user_id, delivered_to, read_to, acked: None, place: None, frame }
    }

    /// Encodes a move told by the live bus.
    pub(crate) fn live(moved: &ReceiptMoved, is_delivery: bool, place: Position) -> Self {
        let acked = moved.device_id.filter(|_| is_delivery).map(|device| (device, moved.up_to));
        let marks = (moved.delivered_to, moved.read_to);
        Self { acked, place: Some(place), ..Self::new(moved.conversation_id, moved.user_id, marks, moved.at) }
    }
}

/// Appends a value as JSON.
pub(super) fn json(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("these types are JSON, and memory takes it");
}

#[cfg(test)]
mod tests {
    use schemas::{MemberLeft, Message, Topic};
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::super::frame::{Decoder, Incoming, Violation};
    use super::*;

    /// The JSON in a server's frame.
    fn parse(frame: &Bytes) -> Value {
        // Masked with zeroes, a server's frame is a client's.
        let header = if frame[1] == 126 { 4 } else { 2 };
        let mut bytes = frame[..header].to_vec();
        bytes[1] |= 0x80;
        bytes.extend([0; 4]);
        bytes.extend(&frame[header..]);
        let mut value = Value::Null;
        Decoder::default()
            .feed(&mut bytes, |incoming| {
                let Incoming::Text(text) = incoming else { panic!("{incoming:?}") };
                value = serde_json::from_str(text).unwrap();
                Ok::<_, Violation>(())
            })
            .unwrap();
        value
    }

    #[test]
    fn an_event_is_as_the_contract_says() {
        let at = datetime!(2026-01-02 03:04:05.006 UTC);
        let (conversation_id, user_id) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let message = Message {
            message_id: Uuid::from_u128(3),
            conversation_id,
            seq: 2,
            sender_id: user_id,
            kind: "text".to_owned(),
            content: Some("Grüße \"👋\"".to_owned()),
            file_ids: vec![],
            reply_to: None,
            mentions: vec![user_id],
            created_at: at,
            edited_at: None,
            deleted: false,
        };
        let place = Position { topic: Topic::Conversations, shard: 3, position: 1042 };
        let numbered = Numbered { conversation_id, seq: 2, at, body: Body::MessageSent(Box::new(message)) };
        let event = Event::live(&numbered, place, None);
        assert_eq!(event.about, About::Other);
        assert_eq!(
            parse(&event.frame),
            json!({
                "type": "event", "conversation_id": conversation_id, "seq": 2, "position": "c3.1042",
                "at": "2026-01-02T03:04:05.006Z", "event": "message.sent",
                "data": {
                    "message_id": Uuid::from_u128(3), "conversation_id": conversation_id, "seq": 2,
                    "sender_id": user_id, "type": "text", "content": "Grüße \"👋\"", "file_ids": [], "reply_to": null,
                    "mentions": [user_id], "created_at": "2026-01-02T03:04:05.006Z", "edited_at": null,
                    "deleted": false,
                },
            })
        );
        let body = Body::MemberLeft(MemberLeft { user_id, by: user_id });
        let left = Event::live(&Numbered { conversation_id, seq: 3, at, body }, place, None);
        assert_eq!(left.about, About::Left(user_id));
        assert_eq!(parse(&left.frame)["data"], json!({"user_id": user_id, "by": user_id}));
        let receipt = Receipt::new(conversation_id, user_id, (2, 1), at);
        assert_eq!(
            parse(&receipt.frame),
            json!({
                "type": "receipt", "conversation_id": conversation_id, "user_id": user_id, "delivered_to": 2,
                "read_to": 1, "at": "2026-01-02T03:04:05.006Z",
            })
        );
    }
}
