//! The frames of the WebSocket, as a client reads and writes them. What is not known is passed over: the contract grows.

use serde::Deserialize;
use time::OffsetDateTime;
use uuid::Uuid;

use schemas::{
    Message, PositionToken,
    rest::{MessageSent, Problem},
};

/// A frame from the server.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ServerFrame {
    Welcome(Welcome),
    Synced,
    Event(Event),
    Receipt(ReceiptMoved),
    Ok(Answer),
    Error {
        #[serde(default)]
        r#ref: Option<String>,
        problem: Problem,
    },
    Left {
        conversation_id: Uuid,
    },
    #[serde(other)]
    Unknown,
}

/// The answer to a frame that carried a `ref`; what a send is answered with is there only for a send.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    pub(crate) r#ref: String,
    message_id: Option<Uuid>,
    seq: Option<u64>,
    #[serde(default, with = "schemas::rfc3339_ms::option")]
    sent_at: Option<OffsetDateTime>,
    position: Option<PositionToken>,
}

impl Answer {
    /// What a send is answered with.
    pub(crate) fn into_sent(self, conversation_id: Uuid) -> Option<MessageSent> {
        Some(MessageSent {
            message_id: self.message_id?,
            conversation_id,
            seq: self.seq?,
            sent_at: self.sent_at?,
            position: self.position?,
        })
    }
}

/// The server's answer to `hello`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Welcome {
    /// The user.
    pub user_id: Uuid,
    /// The device.
    pub device_id: Uuid,
    /// The session.
    pub session_id: Uuid,
    /// How often the server pings, in seconds.
    pub heartbeat_s: u64,
    /// The server's clock.
    #[serde(with = "schemas::rfc3339_ms")]
    pub server_time: OffsetDateTime,
}

/// A numbered event of a conversation.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Event {
    /// Of which conversation.
    pub conversation_id: Uuid,
    /// Its number there: dense, from 1.
    pub seq: u64,
    /// Its position, to ask queries to have reached.
    pub position: PositionToken,
    /// When it was committed.
    #[serde(with = "schemas::rfc3339_ms")]
    pub at: OffsetDateTime,
    /// Its type, such as `message.sent`. There may be types that this library does not know yet.
    #[serde(rename = "event")]
    pub kind: String,
    /// What the type carries.
    pub data: serde_json::Value,
}

impl Event {
    /// The message, if this is `message.sent`.
    pub fn message(&self) -> Option<Message> {
        if self.kind != "message.sent" {
            return None;
        }
        Message::deserialize(&self.data).ok()
    }

    /// Whether this is a user's joining.
    pub(crate) fn is_joining_of(&self, user: Uuid) -> bool {
        self.kind == "conversation.member_joined"
            && self.data.get("user_id").and_then(|id| Uuid::deserialize(id).ok()) == Some(user)
    }
}

/// A member's watermarks moved.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ReceiptMoved {
    /// In which conversation.
    pub conversation_id: Uuid,
    /// Whose.
    pub user_id: Uuid,
    /// Delivered up to this seq.
    pub delivered_to: u64,
    /// Read up to this seq.
    pub read_to: u64,
    /// When.
    #[serde(with = "schemas::rfc3339_ms")]
    pub at: OffsetDateTime,
}

/// The `ref` of a `read`: says what it is about, so that its answer needs no table.
pub(crate) fn read_ref(conversation: Uuid, seq: u64) -> String {
    format!("read {conversation} {seq}")
}

/// What a `ref` of ours stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    Send(Uuid),
    Read { conversation: Uuid, seq: u64 },
    Auth,
    Other,
}

/// The `ref` of a renewal.
pub(crate) const AUTH_REF: &str = "auth";

impl Reference {
    pub(crate) fn parse(text: &str) -> Self {
        if text == AUTH_REF {
            return Self::Auth;
        }
        if let Ok(message) = text.parse() {
            return Self::Send(message);
        }
        let read = || {
            let (conversation, seq) = text.strip_prefix("read ")?.split_once(' ')?;
            Some(Self::Read { conversation: conversation.parse().ok()?, seq: seq.parse().ok()? })
        };
        read().unwrap_or(Self::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_tell_what_they_are_about() {
        let id = Uuid::now_v7();
        assert_eq!(Reference::parse(&id.to_string()), Reference::Send(id));
        assert_eq!(Reference::parse(&read_ref(id, 7)), Reference::Read { conversation: id, seq: 7 });
        assert_eq!(Reference::parse("auth"), Reference::Auth);
        assert_eq!(Reference::parse("read x 7"), Reference::Other);
    }

    #[test]
    fn frames_of_tomorrow_are_passed_over() -> serde_json::Result<()> {
        let frame = serde_json::from_str(r#"{"type":"presence","user_id":"x","state":"online"}"#)?;
        assert!(matches!(frame, ServerFrame::Unknown));
        let frame = r#"{"type":"event","conversation_id":"0192aaaa-0000-7000-8000-000000000000","seq":4,"position":"c1.2",
            "at":"2026-01-01T00:00:00.000Z","event":"message.pinned","data":{"x":1},"more":true}"#;
        assert!(matches!(serde_json::from_str(frame)?, ServerFrame::Event(event) if event.message().is_none()));
        Ok(())
    }
}
