//! What each private event becomes follows the published schema of its type, every version of it.
//!
//! The matches have no wildcard: a new private event does not compile until it has a sample here.

use std::collections::BTreeSet;

use domain::audit::{self, Reading, ReadingEvent};
use domain::conversation::{self, Conversation, ConversationEvent};
use domain::kernel::Stored;
use domain::message::{self, MessageEvent};
use domain::receipt::{Receipt, ReceiptEvent, Watermarks};
use domain::session::{self, Session, SessionEvent};
use domain::user::{self, User, UserEvent};
use event_store::{StoredEvent, Upcasters};
use schemas::Record;
use schemas::catalogue::{EVENT_TYPES, find};
use time::macros::datetime;

use super::tests::{ANN, BEN, ROOM, THING, stored};
use super::translate;

const AT: time::OffsetDateTime = datetime!(2026-01-02 03:04:05.006 UTC);

fn user_after(event: &UserEvent) -> Option<UserEvent> {
    match event {
        UserEvent::Registered(_) => {
            Some(user::ProfileChanged { display_name: Some("Ann".into()), avatar_file_id: Some(THING) }.into())
        }
        UserEvent::ProfileChanged(_) => Some(user::PasswordChanged { password_hash: "secret".into() }.into()),
        UserEvent::PasswordChanged(_) => Some(user::RoleGranted { role: user::Role::Operator }.into()),
        UserEvent::RoleGranted(_) => Some(user::RoleRevoked { role: user::Role::Operator }.into()),
        UserEvent::RoleRevoked(_) => None,
    }
}

fn session_after(event: &SessionEvent) -> Option<SessionEvent> {
    let (hash, client) = (|| "secret".to_owned(), session::Client::default);
    match event {
        SessionEvent::Started(_) => Some(
            session::Refreshed {
                device_id: BEN,
                refresh_hash: hash(),
                refresh_expires_at: AT,
                rotated_at: AT,
                client: client(),
            }
            .into(),
        ),
        SessionEvent::Refreshed(_) => {
            Some(session::Revoked { device_id: BEN, reason: session::RevokeReason::LoggedOut }.into())
        }
        SessionEvent::Revoked(_) => {
            Some(session::ReuseDetected { device_id: BEN, generation: 0, client: client() }.into())
        }
        SessionEvent::ReuseDetected(_) => None,
    }
}

fn conversation_after(event: &ConversationEvent) -> Option<ConversationEvent> {
    let role = conversation::Role::Admin;
    match event {
        ConversationEvent::Created(_) => Some(conversation::Renamed { name: "room".into(), by: ANN }.into()),
        ConversationEvent::Renamed(_) => {
            Some(conversation::SettingsChanged { history: conversation::History::All, by: ANN }.into())
        }
        ConversationEvent::SettingsChanged(_) => Some(
            conversation::MemberJoined { user_id: BEN, role: conversation::Role::Member, by: ANN, joined_seq: 4 }
                .into(),
        ),
        ConversationEvent::MemberJoined(_) => Some(conversation::MemberLeft { user_id: BEN, by: BEN }.into()),
        ConversationEvent::MemberLeft(_) => {
            Some(conversation::MemberRoleChanged { user_id: BEN, role, by: ANN }.into())
        }
        ConversationEvent::MemberRoleChanged(_) => None,
    }
}

fn message_after(event: &MessageEvent) -> Option<MessageEvent> {
    match event {
        MessageEvent::Sent(_) => None,
    }
}

fn receipt_after(event: &ReceiptEvent) -> Option<ReceiptEvent> {
    match event {
        ReceiptEvent::Delivered(marks) => Some(ReceiptEvent::Read(Watermarks { device_id: None, ..marks.clone() })),
        ReceiptEvent::Read(_) => None,
    }
}

/// The record of an event and of all that come after it.
fn records<A: Stored>(
    (key, id, seq): (uuid::Uuid, uuid::Uuid, Option<u64>),
    first: A::Event,
    after: fn(&A::Event) -> Option<A::Event>,
) -> Vec<Record> {
    let events = std::iter::successors(Some(first), after);
    let stored = events.map(|event| stored::<A>(key, id, seq, &event));
    stored.map(|event: StoredEvent| translate(&event, &Upcasters::default()).unwrap()).collect()
}

fn reading_after(event: &ReadingEvent) -> Option<ReadingEvent> {
    match event {
        ReadingEvent::AuditRead(_) => None,
    }
}

fn all() -> Vec<Record> {
    let (password_hash, refresh_hash) = ("secret".to_owned(), "secret".to_owned());
    let registered =
        user::Registered { username: "ann".into(), email: "ann@example.org".into(), display_name: None, password_hash };
    let started = session::Started {
        device_id: BEN,
        device_name: Some("phone".into()),
        refresh_hash,
        refresh_expires_at: AT,
        ends_at: AT,
        client: session::Client { address: Some("192.0.2.7".into()), user_agent: Some("phone/1".into()) },
    };
    let created = |kind, name: Option<&str>, role| conversation::Created {
        kind,
        name: name.map(str::to_owned),
        history: conversation::History::SinceJoin,
        members: vec![(ANN, conversation::Role::Owner), (BEN, role)],
        by: ANN,
    };
    let direct = created(conversation::Kind::Direct, None, conversation::Role::Member);
    let group = created(conversation::Kind::Group, Some("room"), conversation::Role::Admin);
    let sent = |reply_to, mentions| message::Sent {
        sender_id: ANN,
        kind: "text".into(),
        content: "\u{1f44b}\n\"".into(),
        reply_to,
        mentions,
    };
    let marks = Watermarks { user_id: BEN, device_id: Some(THING), delivered_to: u64::from(u32::MAX), read_to: 0 };
    let read = audit::AuditRead { actor: Some(BEN), ..audit::AuditRead::default() };
    let in_room = |seq| (ROOM, THING, seq);
    [
        records::<User>((ANN, ANN, None), registered.into(), user_after),
        records::<Reading>((ANN, THING, None), read.into(), reading_after),
        records::<Session>((ANN, THING, None), started.into(), session_after),
        records::<Conversation>((ROOM, ROOM, Some(1)), direct.into(), conversation_after),
        records::<Conversation>((ROOM, ROOM, Some(1)), group.into(), conversation_after),
        records::<message::Message>(in_room(Some(2)), sent(None, vec![]).into(), message_after),
        records::<message::Message>(in_room(Some(3)), sent(Some(THING), vec![ANN, BEN]).into(), message_after),
        records::<Receipt>(in_room(None), ReceiptEvent::Delivered(marks), receipt_after),
    ]
    .concat()
}

#[test]
fn every_record_follows_every_version_of_its_schema() {
    for record in all() {
        let kind = find(record.event.event_type()).unwrap();
        assert_eq!(kind.topic, record.topic);
        let data = record.event.data().unwrap();
        for version in kind.versions() {
            let validator = jsonschema::options()
                .with_draft(jsonschema::Draft::Draft202012)
                .should_validate_formats(true)
                .build(&kind.schema(version))
                .unwrap();
            let errors: Vec<_> = validator.iter_errors(&data).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{} {version}: {errors:#?}", kind.name);
        }
        let known = kind.schema(kind.version());
        for member in data.as_object().unwrap().keys() {
            assert!(known["properties"][member].is_object(), "{}: {member} is not described", kind.name);
        }
        assert!(!data.to_string().contains("secret"), "{}", kind.name);
    }
}

#[test]
fn every_type_in_the_catalogue_comes_of_something() {
    let published: BTreeSet<_> = all().iter().map(|record| record.event.event_type()).collect();
    assert_eq!(published, EVENT_TYPES.iter().map(|kind| kind.name).collect());
}
