//! An event of every type, and that the catalogue holds them all.

use serde_json::json;
use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::conversation::{Body, History, InitialMember, Kind, Numbered, Role};
use crate::event::Event;
use crate::validation::violations;
use crate::{AuditFilters, UserRole};

const AT: time::OffsetDateTime = datetime!(2026-11-22 20:35:42.007 UTC);
const ID: Uuid = Uuid::from_u128(0x0190_f3a1_7c00_7000_8000_0000_0000_0001);

/// An event of every type. A new variant does not compile until it has a sample here.
pub(crate) fn samples() -> Vec<Event> {
    let mut samples = vec![Event::UserRegistered(UserRegistered {
        user_id: ID,
        username: Some("ann".into()),
        display_name: None,
        email: Some("ann@example.org".into()),
        at: AT,
    })];
    while let Some(next) = samples.last().and_then(after) {
        samples.push(next);
    }
    samples
}

fn after(event: &Event) -> Option<Event> {
    let session = SessionChanged {
        user_id: ID,
        session_id: ID,
        device_id: ID,
        device_name: None,
        address: Some("10.0.0.1".into()),
        user_agent: None,
        at: AT,
    };
    let role = UserRoleChanged { user_id: ID, role: UserRole::Operator, at: AT };
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
        Event::UserPasswordChanged(_) => Event::UserRoleGranted(role),
        Event::UserRoleGranted(_) => Event::UserRoleRevoked(role),
        Event::UserRoleRevoked(_) => Event::AuditRead(AuditRead {
            user_id: ID,
            filters: AuditFilters { event_type: Some("user.registered".into()), ..AuditFilters::default() },
            at: AT,
        }),
        Event::AuditRead(_) => Event::SessionStarted(session),
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
            Body::SettingsChanged(_) => Body::MemberJoined(MemberJoined { user_id: ID, role: Role::Member, by: ID }),
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
        let kind = event.kind();
        assert!(std::ptr::eq(find(kind.name).expect("it is in the catalogue"), kind), "{} is there once", kind.name);
        assert_eq!(kind.numbered, matches!(event, Event::Numbered(_)), "{}", kind.name);
        let data = event.data().unwrap();
        // Versions only gain optional members: what is written by the newest follows every other one too.
        for version in kind.versions() {
            let schema = kind.schema(version);
            let known = if version == kind.version() { data.clone() } else { only_known(&schema, &data) };
            assert_eq!(violations(&schema, &schema, &known), Vec::<String>::new(), "{} {version}", kind.name);
        }
        let schema = kind.json_schema();
        let Value::Object(members) = data else { panic!("{} is an object", kind.name) };
        for member in members.keys().filter(|name| schema["required"].as_array().unwrap().contains(&json!(name))) {
            let mut without = members.clone();
            without.remove(member);
            assert_ne!(violations(&schema, &schema, &without.into()), Vec::<String>::new(), "{member} is required");
        }
    }
}

/// What a consumer of that schema looks at.
fn only_known(schema: &Value, data: &Value) -> Value {
    let known = data.as_object().into_iter().flatten().filter(|(name, _)| schema["properties"].get(name).is_some());
    known.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>().into()
}

#[test]
fn a_type_holds_several_versions() {
    const BEFORE: &str =
        r#"{"type": "object", "required": ["user_id"], "properties": {"user_id": {"type": "string"}}}"#;
    let twice = EventType { earlier: &[BEFORE], ..USER_PASSWORD_CHANGED };
    assert_eq!((twice.version(), twice.versions()), (2, 1..=2));
    assert_eq!(twice.document(1), BEFORE);
    let newest = twice.schema(2);
    assert_eq!(newest["$id"], "https://parlance.invalid/schemas/user.password_changed/2.json");
    // What came later is optional.
    assert_eq!(newest["required"], json!(["user_id"]));
    assert!(newest["properties"]["at"].is_object());
}

#[test]
fn a_document_has_one_address() {
    let document: Value = serde_json::from_str(&schema_document("message.sent", "1").unwrap()).unwrap();
    assert_eq!(document["$id"], "https://parlance.invalid/schemas/message.sent/1.json");
    assert_eq!(document["title"], "message.sent");
    for (name, version) in [("message.sent", "0"), ("message.sent", "01"), ("message.sent", "+1"), ("nothing", "1")] {
        assert_eq!(schema_document(name, version), None, "{name} {version}");
    }
}
