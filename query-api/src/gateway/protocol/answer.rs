//! Frames that answer one client.

use bytes::Bytes;
use platform::auth::Caller;
use schemas::rest::{MessageSent, Problem};
use schemas::ws::ServerFrame;
use time::OffsetDateTime;
use uuid::Uuid;

use super::event::json;
use super::frame::text_frame;

fn frame(frame: &ServerFrame<'_, ()>) -> Bytes {
    text_frame(|out| json(out, frame))
}

/// The answer to `hello`.
pub(crate) fn welcome(
    reference: Option<&str>,
    caller: &Caller,
    heartbeat_s: u64,
    server_time: OffsetDateTime,
) -> Bytes {
    let Caller { user_id, device_id, session_id, .. } = *caller;
    frame(&ServerFrame::Welcome { reference, user_id, device_id, session_id, heartbeat_s, server_time })
}

/// All that was committed before `hello` has been sent.
pub(crate) fn synced() -> Bytes {
    frame(&ServerFrame::Synced {})
}

/// No longer a member.
pub(crate) fn left(conversation_id: Uuid) -> Bytes {
    frame(&ServerFrame::Left { conversation_id })
}

/// The answer to `send`.
pub(crate) fn sent(reference: &str, sent: MessageSent) -> Bytes {
    frame(&ServerFrame::Sent { reference: Some(reference), sent })
}

/// The answer to another frame.
pub(crate) fn ok(reference: &str) -> Bytes {
    frame(&ServerFrame::Ok { reference: Some(reference) })
}

/// A refusal.
pub(crate) fn error(reference: Option<&str>, problem: &Problem) -> Bytes {
    frame(&ServerFrame::Error { reference, problem })
}

/// The answer to `ping`.
pub(crate) fn pong(reference: Option<&str>) -> Bytes {
    frame(&ServerFrame::Pong { reference })
}

#[cfg(test)]
mod tests {
    use schemas::{Position, Topic};
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;

    fn parse(frame: &Bytes) -> Value {
        let header = if frame[1] == 126 { 4 } else { 2 };
        serde_json::from_slice(&frame[header..]).unwrap()
    }

    #[test]
    fn answers_are_as_the_contract_says() {
        let at = datetime!(2026-01-02 03:04:05 UTC);
        let id = Uuid::from_u128(1);
        let caller =
            Caller { user_id: id, session_id: Uuid::from_u128(2), device_id: Uuid::from_u128(3), expires_at: at };
        assert_eq!(
            parse(&welcome(None, &caller, 30, at)),
            json!({
                "type": "welcome", "user_id": id, "device_id": Uuid::from_u128(3), "session_id": Uuid::from_u128(2),
                "heartbeat_s": 30, "server_time": "2026-01-02T03:04:05.000Z",
            })
        );
        assert_eq!(parse(&welcome(Some("h"), &caller, 30, at))["ref"], "h");
        assert_eq!(parse(&synced()), json!({"type": "synced"}));
        assert_eq!(parse(&left(id)), json!({"type": "left", "conversation_id": id}));
        assert_eq!(parse(&ok("7")), json!({"type": "ok", "ref": "7"}));
        assert_eq!(parse(&pong(None)), json!({"type": "pong"}));
        let position = Position { topic: Topic::Conversations, shard: 0, position: 9 }.into();
        let answer = MessageSent { message_id: id, conversation_id: id, seq: 4, sent_at: at, position };
        assert_eq!(
            parse(&sent("1", answer)),
            json!({
                "type": "ok", "ref": "1", "message_id": id, "conversation_id": id, "seq": 4,
                "sent_at": "2026-01-02T03:04:05.000Z", "position": "c0.9",
            })
        );
        let problem = platform::http::Problem::not_found().to_body(platform::http::TraceId::random());
        let error = parse(&error(Some("1"), &problem));
        assert_eq!(
            (&error["type"], &error["ref"], &error["problem"]["status"]),
            (&json!("error"), &json!("1"), &json!(404))
        );
    }
}
