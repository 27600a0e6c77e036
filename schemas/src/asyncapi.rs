//! The AsyncAPI 3 document: frames of the WebSocket, and the event topics.

mod record;

use serde_json::{Map, Value, json};

use crate::catalogue::{EVENT_TYPES, EventType, named, reference};
use crate::rest::{MessageSent, Problem, SendMessage};
use crate::{Topic, ws};

pub use record::headers;

/// How many partitions the topics of a new installation have, where it is not told otherwise.
pub const USUAL_PARTITIONS: u16 = 16;

/// A frame: its name, what it means, and the schema of its members but `type` and `ref`.
struct Frame {
    name: &'static str,
    summary: &'static str,
    members: Value,
    reference: Reference,
}

/// Whether a frame carries `ref`.
#[derive(Clone, Copy, PartialEq)]
enum Reference {
    Never,
    Maybe,
}

/// The document of this version of the product.
pub fn document(version: &str) -> Value {
    let mut schemas = Map::new();
    let mut messages = Map::new();

    let from_client: Vec<_> = client_frames(&mut schemas)
        .into_iter()
        .map(|frame| add(&mut messages, &format!("client.{}", frame.name), frame_message(&frame)))
        .collect();
    let mut from_server: Vec<_> = server_frames(&mut schemas)
        .into_iter()
        .map(|(name, frame)| add(&mut messages, &format!("server.{name}"), frame_message(&frame)))
        .collect();
    for kind in EVENT_TYPES.iter().filter(|kind| kind.numbered) {
        let frame = event_frame(kind, &mut schemas);
        from_server.push(add(&mut messages, &format!("server.event.{}", kind.name), frame));
    }

    let mut channels = Map::new();
    let mut operations = Map::new();
    let both: Vec<_> = from_client.iter().chain(&from_server).cloned().collect();
    channels.insert("socket".to_owned(), socket_channel(&both));
    operations.insert("receiveFrame".to_owned(), operation("receive", "socket", &from_client, "What a client sends."));
    operations.insert("sendFrame".to_owned(), operation("send", "socket", &from_server, "What the server sends."));
    for topic in Topic::ALL {
        let kinds = EVENT_TYPES.iter().filter(|kind| kind.topic == topic);
        let names: Vec<_> = kinds
            .map(|kind| add(&mut messages, &format!("record.{}", kind.name), record::message(kind, &mut schemas)))
            .collect();
        let channel = topic.name().replace('.', "-");
        operations.insert(format!("publish-{channel}"), operation("send", &channel, &names, "Every event, in order."));
        channels.insert(channel, record::channel(topic, &references(&names)));
    }

    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Parlance",
            "version": version,
            "description": "What Parlance tells as it happens: to clients over a WebSocket, to other systems over Kafka. \
                            Commands and queries are in `/openapi.json`.",
            "license": { "name": "Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": schemas, "securitySchemes": {
            "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                        "description": "An access token, in the upgrade's `Authorization`; it wins over a ticket." },
            "ticket": { "type": "httpApiKey", "in": "query", "name": "ticket",
                        "description": "From `POST /v1/ws-tickets`: good once, for 30 s." },
        } },
    })
}

/// Adds a message to the components; its name, as channels and operations refer to it.
fn add(messages: &mut Map<String, Value>, name: &str, message: Value) -> String {
    messages.insert(name.to_owned(), message);
    name.to_owned()
}

fn socket_channel(names: &[String]) -> Value {
    json!({
        "address": "/v1/ws",
        "title": "The WebSocket",
        "description": "Subprotocol `parlance.v1`; one JSON object a text frame. The client begins with `hello`. \
                        A frame may carry `ref`: its answer carries it again; without, only errors are answered. \
                        Events of a conversation ascend by `seq` without a gap, and come again until they are acked: \
                        a client drops a `seq` that it has.",
        "messages": references(names),
        "bindings": { "ws": {
            "method": "GET",
            "query": { "type": "object", "properties": { "ticket": { "type": "string" } } },
            "headers": { "type": "object", "required": ["Sec-WebSocket-Protocol"], "properties": {
                "Sec-WebSocket-Protocol": { "type": "string", "const": ws::SUBPROTOCOL },
                "Authorization": { "type": "string" },
            } },
            "bindingVersion": "0.1.0",
        } },
        "x-close-codes": {
            ws::close::PROTOCOL.to_string(): "not a text frame, not a JSON object, no `type`, too large, first frame \
                                              not `hello`, a second `hello`",
            ws::close::TOKEN.to_string(): "token expired or revoked",
            ws::close::NO_HELLO.to_string(): "no `hello` in 10 s",
            ws::close::TOO_SLOW.to_string(): "too slow; resume later",
            ws::close::REPLACED.to_string(): "replaced by a newer connection of the same device",
            ws::close::DRAINING.to_string(): "the server drains; reconnect with jitter",
            ws::close::RATE_LIMIT.to_string(): "too many refusals",
        },
    })
}

fn references(names: &[String]) -> Map<String, Value> {
    let reference = |name: &String| json!({ "$ref": format!("#/components/messages/{name}") });
    names.iter().map(|name| (name.clone(), reference(name))).collect()
}

fn operation(action: &str, channel: &str, names: &[String], summary: &str) -> Value {
    let security: &[Value] = &[
        json!({ "$ref": "#/components/securitySchemes/bearer" }),
        json!({ "$ref": "#/components/securitySchemes/ticket" }),
    ];
    let message = |name: &String| json!({ "$ref": format!("#/channels/{channel}/messages/{name}") });
    let mut operation = json!({
        "action": action,
        "summary": summary,
        "channel": { "$ref": format!("#/channels/{channel}") },
        "messages": names.iter().map(message).collect::<Vec<_>>(),
    });
    if channel == "socket" {
        operation["security"] = security.into();
    }
    operation
}

fn frame_message(frame: &Frame) -> Value {
    let mut payload = json!({
        "type": "object",
        "required": ["type"],
        "properties": { "type": { "type": "string", "const": frame.name } },
    });
    if frame.reference == Reference::Maybe {
        payload["properties"]["ref"] = json!({ "type": "string", "description": "That of the frame that it answers." });
    }
    let payload = if frame.members.is_null() { payload } else { json!({ "allOf": [payload, frame.members] }) };
    json!({ "name": frame.name, "title": frame.name, "summary": frame.summary, "payload": payload })
}

/// An object all of whose members are there.
fn all(properties: &Value) -> Value {
    let required: Vec<_> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

fn id() -> Value {
    json!({ "type": "string", "format": "uuid" })
}

fn seq() -> Value {
    json!({ "type": "integer", "format": "int64", "minimum": 0 })
}

fn at() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn client_frames(schemas: &mut Map<String, Value>) -> Vec<Frame> {
    let frame = |name, summary, members| Frame { name, summary, members, reference: Reference::Maybe };
    let place = || all(&json!({ "conversation_id": id(), "seq": seq() }));
    let send = json!({ "allOf": [all(&json!({ "conversation_id": id() })), request::<SendMessage>(schemas)] });
    vec![
        frame(
            "hello",
            "The first frame. Cursors default to what this device last acked.",
            json!({ "type": "object", "properties": { "cursors": {
                "type": ["object", "null"],
                "propertyNames": { "format": "uuid" },
                "additionalProperties": seq(),
            } } }),
        ),
        frame("send", "As `POST /v1/conversations/{conversation_id}/messages`.", send),
        frame("ack", "This device durably has everything up to `seq`.", place()),
        frame("read", "Its user has read up to `seq`.", place()),
        frame(
            "auth",
            "Renews the token in band; of the same session.",
            all(&json!({ "access_token": { "type": "string" } })),
        ),
        frame("ping", "Answered by `pong`.", Value::Null),
    ]
}

/// Frames by the name of their message, which two of one type share.
fn server_frames(schemas: &mut Map<String, Value>) -> Vec<(&'static str, Frame)> {
    let frame = |name, summary, members, reference| (name, Frame { name, summary, members, reference });
    let problem = all(&json!({ "problem": request::<Problem>(schemas) }));
    let sent = Frame {
        name: "ok",
        summary: "Answers `send`: the message was committed.",
        members: named::<MessageSent>(schemas),
        reference: Reference::Maybe,
    };
    vec![
        frame(
            "welcome",
            "Answers `hello`; then comes the backlog, then what is live.",
            all(&json!({
                "user_id": id(), "device_id": id(), "session_id": id(),
                "heartbeat_s": { "type": "integer", "minimum": 1 },
                "server_time": at(),
            })),
            Reference::Maybe,
        ),
        frame("synced", "Everything committed before `hello` has been sent.", Value::Null, Reference::Never),
        frame(
            "receipt",
            "A member's watermarks; only forward.",
            all(&json!({
                "conversation_id": id(), "user_id": id(), "delivered_to": seq(), "read_to": seq(), "at": at(),
            })),
            Reference::Never,
        ),
        ("sent", sent),
        frame("ok", "Answers any other frame that carried a `ref`.", Value::Null, Reference::Maybe),
        frame("error", "Refuses a frame.", problem, Reference::Maybe),
        frame("pong", "Answers `ping`.", Value::Null, Reference::Maybe),
        frame(
            "left",
            "No longer a member: nothing more of it follows.",
            all(&json!({ "conversation_id": id() })),
            Reference::Never,
        ),
    ]
}

fn event_frame(kind: &EventType, schemas: &mut Map<String, Value>) -> Value {
    let members = all(&json!({
        "conversation_id": id(),
        "seq": seq(),
        "position": { "type": "string", "description": "Opaque: good as `Min-Position`." },
        "at": at(),
        "event": { "type": "string", "const": kind.name },
        "data": kind.body_schema(schemas),
    }));
    let mut message =
        frame_message(&Frame { name: "event", summary: kind.summary, members, reference: Reference::Never });
    message["title"] = kind.name.into();
    message
}

/// The reference to a type of which members may be missing.
fn request<T: utoipa::ToSchema>(schemas: &mut Map<String, Value>) -> Value {
    let mut found = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut found);
    for (name, schema) in found {
        schemas.entry(name).or_insert_with(|| serde_json::to_value(schema).unwrap_or_default());
    }
    json!({ "$ref": reference(&T::name()) })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::catalogue::tests::samples;
    use crate::validation::violations;
    use crate::ws::{ClientFrame, Referenced, ServerFrame};
    use crate::{Event, Position};

    const ID: Uuid = Uuid::from_u128(7);

    /// Every `$ref` of a document.
    fn references_in<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => members.iter().for_each(|(name, member)| match member {
                Value::String(target) if name == "$ref" => found.push(target),
                other => references_in(other, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| references_in(item, found)),
            _ => {}
        }
    }

    /// How many of the messages that `operation` may carry this frame is, by their schemas.
    fn fits(document: &Value, operation: &str, frame: &Value) -> usize {
        let messages = document["operations"][operation]["messages"].as_array().unwrap();
        let payload = |message: &Value| {
            let entry = document.pointer(&message["$ref"].as_str().unwrap()[1..]).unwrap();
            &document.pointer(&entry["$ref"].as_str().unwrap()[1..]).unwrap()["payload"]
        };
        messages.iter().filter(|message| violations(document, payload(message), frame).is_empty()).count()
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document("1.2.3");
        let mut found = Vec::new();
        references_in(&document, &mut found);
        assert!(found.len() > 50);
        for target in found {
            assert!(document.pointer(&target[1..]).is_some(), "{target}");
        }
    }

    #[test]
    fn operations_carry_only_what_their_channel_has() {
        let document = document("1.2.3");
        assert_eq!(document["asyncapi"], "3.0.0");
        assert_eq!(document["info"]["version"], "1.2.3");
        for (name, operation) in document["operations"].as_object().unwrap() {
            let channel = operation["channel"]["$ref"].as_str().unwrap();
            assert!(["send", "receive"].contains(&operation["action"].as_str().unwrap()));
            for message in operation["messages"].as_array().unwrap() {
                assert!(message["$ref"].as_str().unwrap().starts_with(&format!("{channel}/messages/")), "{name}");
            }
        }
        for topic in Topic::ALL {
            let channel = &document["channels"][topic.name().replace('.', "-")];
            assert_eq!(channel["address"], topic.name());
            let carried = channel["messages"].as_object().unwrap().len();
            assert_eq!(carried, EVENT_TYPES.iter().filter(|kind| kind.topic == topic).count());
        }
    }

    #[test]
    fn client_frames_are_as_described() {
        let frames = [
            ClientFrame::Hello { cursors: Some(HashMap::from([(ID, 7)])) },
            ClientFrame::Hello { cursors: None },
            ClientFrame::Send {
                conversation_id: ID,
                message: SendMessage {
                    message_id: ID,
                    content: "x".into(),
                    kind: None,
                    reply_to: Some(ID),
                    mentions: vec![],
                    file_ids: vec![],
                },
            },
            ClientFrame::Ack { conversation_id: ID, seq: 1 },
            ClientFrame::Read { conversation_id: ID, seq: 1 },
            ClientFrame::Auth { access_token: "x".into() },
            ClientFrame::Ping {},
        ];
        let document = document("1.2.3");
        for frame in frames {
            let json = serde_json::to_value(Referenced { reference: Some("r".into()), frame }).unwrap();
            assert_eq!(fits(&document, "receiveFrame", &json), 1, "{json}");
        }
        let unknown = json!({ "type": "typing", "conversation_id": ID, "on": true });
        assert_eq!(fits(&document, "receiveFrame", &unknown), 0);
    }

    #[test]
    fn server_frames_are_as_described() {
        let at = datetime!(2026-11-22 20:35:42.007 UTC);
        let position = Position { topic: Topic::Conversations, shard: 3, position: 1042 };
        let problem = Problem {
            kind: "/problems/not-found".into(),
            title: "Not found".into(),
            status: 404,
            detail: "x".into(),
            retryable: false,
            trace_id: "x".into(),
            retry_after_s: None,
            errors: vec![],
        };
        let sent = MessageSent { message_id: ID, conversation_id: ID, seq: 2, sent_at: at, position: position.into() };
        let (user_id, conversation_id, reference) = (ID, ID, Some("r"));
        let frames: [ServerFrame<'_>; 8] = [
            ServerFrame::Welcome {
                reference,
                user_id,
                device_id: ID,
                session_id: ID,
                heartbeat_s: 30,
                server_time: at,
            },
            ServerFrame::Synced {},
            ServerFrame::Receipt { conversation_id, user_id, delivered_to: 2, read_to: 1, at },
            ServerFrame::Sent { reference, sent },
            ServerFrame::Ok { reference },
            ServerFrame::Error { reference: None, problem: &problem },
            ServerFrame::Pong { reference: None },
            ServerFrame::Left { conversation_id },
        ];
        let document = document("1.2.3");
        for frame in frames {
            let json = serde_json::to_value(&frame).unwrap();
            assert_eq!(fits(&document, "sendFrame", &json), 1, "{json}");
        }
        for event in samples() {
            let Event::Numbered(numbered) = event else { continue };
            let json = serde_json::to_value(ServerFrame::Event {
                conversation_id,
                seq: numbered.seq,
                position,
                at,
                event: numbered.body.event_type(),
                data: &numbered.body,
            });
            let json = json.unwrap();
            assert_eq!(fits(&document, "sendFrame", &json), 1, "{json}");
        }
    }
}
