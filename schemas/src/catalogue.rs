//! Every type of public event: its topic, its version, the schema of its data.

use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use crate::{
    ConversationCreated, ConversationRenamed, MemberJoined, MemberLeft, MemberRoleChanged, Message, ReceiptMoved,
    SessionChanged, SettingsChanged, Topic, UserChanged, UserProfileChanged, UserRegistered,
};

/// One version of a type of event.
#[derive(Clone, Copy, Debug)]
pub struct EventType {
    /// The type, `ce_type` in Kafka.
    pub name: &'static str,
    /// The version of its schema.
    pub version: &'static str,
    /// The topic.
    pub topic: Topic,
    /// Whether it counts in its conversation, and so is a frame of the WebSocket too.
    pub numbered: bool,
    /// What it says, in words.
    pub summary: &'static str,
    schema: fn(&mut Map<String, Value>) -> Value,
}

const fn of(topic: Topic, name: &'static str, summary: &'static str, schema: Schemer) -> EventType {
    EventType { name, version: "1", topic, numbered: false, summary, schema }
}

const fn numbered(name: &'static str, summary: &'static str, schema: Schemer) -> EventType {
    EventType { numbered: true, ..of(Topic::Conversations, name, summary, schema) }
}

type Schemer = fn(&mut Map<String, Value>) -> Value;

/// All of them.
pub const EVENT_TYPES: &[EventType] = &[
    of(Topic::Users, "user.registered", "Somebody registered.", named::<UserRegistered>),
    of(Topic::Users, "user.profile_changed", "A profile, as it is from now on.", named::<UserProfileChanged>),
    of(Topic::Users, "user.password_changed", "A password changed; not which.", named::<UserChanged>),
    of(Topic::Users, "session.started", "Somebody logged in on a device.", named::<SessionChanged>),
    of(Topic::Users, "session.refreshed", "A session goes on.", named::<SessionChanged>),
    of(Topic::Users, "session.revoked", "A session ended.", named::<SessionChanged>),
    of(Topic::Users, "session.reuse_detected", "A spent refresh token was used again.", named::<SessionChanged>),
    numbered("conversation.created", "A conversation was opened; always number 1.", named::<ConversationCreated>),
    numbered("conversation.renamed", "A group has another name.", named::<ConversationRenamed>),
    numbered("conversation.settings_changed", "What members see of the time before them.", named::<SettingsChanged>),
    numbered("conversation.member_joined", "Somebody came in later.", named::<MemberJoined>),
    numbered("conversation.member_left", "Somebody left or was removed.", named::<MemberLeft>),
    numbered("conversation.member_role_changed", "A member has another role.", named::<MemberRoleChanged>),
    numbered("message.sent", "Somebody said something.", named::<Message>),
    of(
        Topic::Conversations,
        "message.delivered",
        "Everything up to a number is on a device of a member's.",
        named::<ReceiptMoved>,
    ),
    of(Topic::Conversations, "message.read", "A member has read everything up to a number.", named::<ReceiptMoved>),
];

/// The type of that name and version.
pub fn find(name: &str, version: &str) -> Option<&'static EventType> {
    EVENT_TYPES.iter().find(|kind| kind.name == name && kind.version == version)
}

impl EventType {
    /// The schema of what the event says: `data` of its WebSocket frame where it is numbered.
    ///
    /// Types that it refers to are added to `schemas`, by name.
    pub fn body_schema(&self, schemas: &mut Map<String, Value>) -> Value {
        (self.schema)(schemas)
    }

    /// The schema of its record's data: of a numbered event also where and when.
    pub fn data_schema(&self, schemas: &mut Map<String, Value>) -> Value {
        let body = self.body_schema(schemas);
        if !self.numbered {
            return body;
        }
        schemas.insert(
            "Numbered".to_owned(),
            json!({
                "type": "object",
                "description": "Where and when a numbered event happened.",
                "required": ["conversation_id", "seq", "at"],
                "properties": {
                    "conversation_id": { "type": "string", "format": "uuid" },
                    "seq": { "type": "integer", "format": "int64", "minimum": 1,
                             "description": "Counts the conversation's numbered events, without a gap." },
                    "at": { "type": "string", "format": "date-time" },
                },
            }),
        );
        json!({ "allOf": [{ "$ref": reference("Numbered") }, body] })
    }

    /// The schema of its record's data, whole, as JSON Schema 2020-12.
    pub fn json_schema(&self) -> Value {
        let mut definitions = Map::new();
        let mut schema = self.data_schema(&mut definitions);
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
        schema["title"] = self.name.into();
        schema["description"] = self.summary.into();
        schema["$defs"] = definitions.into();
        relocate(schema, "#/components/schemas/", "#/$defs/")
    }
}

/// A reference to a type among the schemas of a document.
pub(crate) fn reference(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

/// The reference to a type, which is added to `schemas` with all that it refers to.
pub(crate) fn named<T: ToSchema>(schemas: &mut Map<String, Value>) -> Value {
    let mut found: Vec<(String, RefOr<Schema>)> = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut found);
    for (name, schema) in found {
        // Plain data of utoipa's own types, which JSON always takes.
        schemas.entry(name).or_insert_with(|| complete(serde_json::to_value(schema).unwrap_or_default()));
    }
    json!({ "$ref": reference(&T::name()) })
}

/// What is sent has all its members: absent values are null, not missing.
fn complete(mut schema: Value) -> Value {
    if let Some(members) = schema["properties"].as_object() {
        schema["required"] = members.keys().cloned().collect();
    }
    schema
}

/// Moves every reference from one place to another.
fn relocate(mut value: Value, from: &str, to: &str) -> Value {
    match &mut value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                match member {
                    Value::String(target) if name == "$ref" => *target = target.replace(from, to),
                    other => *other = relocate(other.take(), from, to),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = relocate(item.take(), from, to)),
        _ => {}
    }
    value
}

#[cfg(test)]
pub(crate) mod tests {
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::conversation::{Body, History, InitialMember, Kind, Numbered, Role};
    use crate::event::Event;
    use crate::validation::violations;

    const AT: time::OffsetDateTime = datetime!(2026-11-22 20:35:42.007 UTC);
    const ID: Uuid = Uuid::from_u128(0x0190_f3a1_7c00_7000_8000_0000_0000_0001);

    /// An event of every type. A new variant does not compile until it has a sample here.
    pub(crate) fn samples() -> Vec<Event> {
        let mut samples = vec![Event::UserRegistered(UserRegistered {
            user_id: ID,
            username: "ann".into(),
            display_name: None,
            email: "ann@example.org".into(),
            at: AT,
        })];
        while let Some(next) = samples.last().and_then(after) {
            samples.push(next);
        }
        samples
    }

    fn after(event: &Event) -> Option<Event> {
        let session = SessionChanged { user_id: ID, session_id: ID, device_id: ID, device_name: None, at: AT };
        let receipt = ReceiptMoved {
            conversation_id: ID,
            user_id: ID,
            device_id: Some(ID),
            up_to: 7,
            delivered_to: 7,
            read_to: 3,
            at: AT,
        };
        let numbered = |body| Event::Numbered(Numbered { conversation_id: ID, seq: 1, at: AT, body });
        Some(match event {
            Event::UserRegistered(_) => Event::UserProfileChanged(UserProfileChanged {
                user_id: ID,
                display_name: Some("Ann".into()),
                avatar_file_id: None,
                at: AT,
            }),
            Event::UserProfileChanged(_) => Event::UserPasswordChanged(UserChanged { user_id: ID, at: AT }),
            Event::UserPasswordChanged(_) => Event::SessionStarted(session),
            Event::SessionStarted(_) => Event::SessionRefreshed(session),
            Event::SessionRefreshed(_) => Event::SessionRevoked(session),
            Event::SessionRevoked(_) => Event::SessionReuseDetected(session),
            Event::SessionReuseDetected(_) => Event::MessageDelivered(receipt),
            Event::MessageDelivered(_) => Event::MessageRead(receipt),
            Event::MessageRead(_) => numbered(Body::Created(ConversationCreated {
                kind: Kind::Group,
                name: Some("us".into()),
                history: History::SinceJoin,
                members: vec![InitialMember { user_id: ID, role: Role::Owner }],
                by: ID,
            })),
            Event::Numbered(Numbered { body, .. }) => numbered(match body {
                Body::Created(_) => Body::Renamed(ConversationRenamed { name: "all of us".into(), by: ID }),
                Body::Renamed(_) => Body::SettingsChanged(SettingsChanged { history: History::All, by: ID }),
                Body::SettingsChanged(_) => {
                    Body::MemberJoined(MemberJoined { user_id: ID, role: Role::Member, by: ID })
                }
                Body::MemberJoined(_) => Body::MemberLeft(MemberLeft { user_id: ID, by: ID }),
                Body::MemberLeft(_) => {
                    Body::MemberRoleChanged(MemberRoleChanged { user_id: ID, role: Role::Admin, by: ID })
                }
                Body::MemberRoleChanged(_) => Body::MessageSent(Box::new(Message {
                    message_id: ID,
                    conversation_id: ID,
                    seq: 1,
                    sender_id: ID,
                    kind: "text".into(),
                    content: Some("Grüße".into()),
                    file_ids: vec![],
                    reply_to: None,
                    mentions: vec![ID],
                    created_at: AT,
                    edited_at: None,
                    deleted: false,
                })),
                Body::MessageSent(_) => return None,
            }),
        })
    }

    #[test]
    fn every_event_is_in_the_catalogue_and_is_what_its_schema_says() {
        let samples = samples();
        assert_eq!(samples.len(), EVENT_TYPES.len());
        for event in samples {
            let kind = find(event.event_type(), &event.version().to_string()).expect("it is in the catalogue");
            assert_eq!(kind.topic, event.topic(), "{}", kind.name);
            assert_eq!(kind.numbered, matches!(event, Event::Numbered(_)), "{}", kind.name);
            let schema = kind.json_schema();
            let data = event.data().unwrap();
            assert_eq!(violations(&schema, &schema, &data), Vec::<String>::new(), "{}", kind.name);
            let Value::Object(members) = data else { panic!("{} is an object", kind.name) };
            for member in members.keys() {
                let mut without = members.clone();
                without.remove(member);
                assert_ne!(violations(&schema, &schema, &without.into()), Vec::<String>::new(), "{member} is required");
            }
        }
    }
}
