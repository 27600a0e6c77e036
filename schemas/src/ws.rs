//! Frames of the WebSocket subprotocol `parlance.v1`: one JSON object a text frame.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::rest::{MessageSent, Problem, SendMessage};
use crate::{Body, Position, rfc3339_ms};

/// The subprotocol's name.
pub const SUBPROTOCOL: &str = "parlance.v1";

/// The largest frame a client may send, in bytes.
pub const MAX_FRAME_BYTES: usize = 128 * 1024;

/// Close codes of the subprotocol.
pub mod close {
    /// Not a text frame, not a JSON object, no `type`, too large, first frame not `hello`, a second `hello`.
    pub const PROTOCOL: u16 = 4000;
    /// Token expired or revoked.
    pub const TOKEN: u16 = 4001;
    /// No `hello` in 10 s.
    pub const NO_HELLO: u16 = 4002;
    /// Too slow; resume later.
    pub const TOO_SLOW: u16 = 4008;
    /// Replaced by a newer connection of the same device.
    pub const REPLACED: u16 = 4009;
    /// The server drains; reconnect with jitter.
    pub const DRAINING: u16 = 4010;
    /// Too many refusals.
    pub const RATE_LIMIT: u16 = 4029;
}

/// What a client sends, without its `ref`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame {
    /// The first frame.
    Hello {
        /// Positions of this connection alone; else what the device last acked.
        #[serde(default)]
        cursors: Option<HashMap<Uuid, u64>>,
    },
    /// As the POST of a message.
    Send {
        /// The conversation.
        conversation_id: Uuid,
        /// The message.
        #[serde(flatten)]
        message: SendMessage,
    },
    /// This device durably has everything up to `seq`.
    Ack {
        /// The conversation.
        conversation_id: Uuid,
        /// Cumulative.
        seq: u64,
    },
    /// Its user has read up to `seq`.
    Read {
        /// The conversation.
        conversation_id: Uuid,
        /// Cumulative.
        seq: u64,
    },
    /// Renews the token in band.
    Auth {
        /// A token of the same session.
        access_token: String,
    },
    /// Answered by `pong`.
    Ping {},
}

/// A client's frame with its `ref`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Referenced<F> {
    /// What the answer carries again.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The frame.
    #[serde(flatten)]
    pub frame: F,
}

/// What a server sends; `D` is the data of an event.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame<'a, D: ?Sized = Body> {
    /// Answers `hello`.
    Welcome {
        /// That of the `hello`.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        /// Who this is.
        user_id: Uuid,
        /// On which device.
        device_id: Uuid,
        /// In which session.
        session_id: Uuid,
        /// The server pings this often, in seconds.
        heartbeat_s: u64,
        /// The server's clock.
        #[serde(with = "rfc3339_ms")]
        server_time: OffsetDateTime,
    },
    /// Everything committed before `hello` has been sent.
    Synced {},
    /// A numbered event.
    Event {
        /// The conversation.
        conversation_id: Uuid,
        /// Its number there.
        seq: u64,
        /// Its place in the log.
        position: Position,
        /// When it happened.
        #[serde(with = "rfc3339_ms")]
        at: OffsetDateTime,
        /// The type.
        event: &'a str,
        /// What it says.
        data: &'a D,
    },
    /// A member's watermarks.
    Receipt {
        /// The conversation.
        conversation_id: Uuid,
        /// The member.
        user_id: Uuid,
        /// On a device of theirs.
        delivered_to: u64,
        /// Read by them.
        read_to: u64,
        /// When they last moved.
        #[serde(with = "rfc3339_ms")]
        at: OffsetDateTime,
    },
    /// Answers `send`.
    #[serde(rename = "ok")]
    Sent {
        /// That of the `send`.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        /// The message as it was committed.
        #[serde(flatten)]
        sent: MessageSent,
    },
    /// Answers another frame that carried a `ref`.
    Ok {
        /// That of the frame.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
    },
    /// Refuses a frame.
    Error {
        /// That of the frame.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
        /// Why.
        problem: &'a Problem,
    },
    /// Answers `ping`.
    Pong {
        /// That of the `ping`.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a str>,
    },
    /// No longer a member: nothing more of it follows.
    Left {
        /// The conversation.
        conversation_id: Uuid,
    },
}
