//! From what the log keeps to what the world is told: every private event becomes one public record.
//!
//! A new private event does not compile until it is translated here: no match below has a wildcard for events.

use domain::audit::{self, ReadingEvent};
use domain::conversation::{self, Conversation, ConversationEvent};
use domain::kernel::Stored;
use domain::message::{self, MessageEvent};
use domain::receipt::{Receipt, ReceiptEvent, Watermarks};
use domain::session::{Client, Session, SessionEvent};
use domain::user::{self, User, UserEvent};
use event_store::{StoredEvent, Upcasters};
use schemas::{
    AuditFilters, AuditRead, Body, ConversationCreated, ConversationRenamed, Event, History, InitialMember, Kind,
    MemberJoined, MemberLeft, MemberRoleChanged, Message, Numbered, ReceiptMoved, Record, Role, SessionChanged,
    SettingsChanged, UserChanged, UserProfileChanged, UserRegistered, UserRole, UserRoleChanged,
};
use uuid::Uuid;

use crate::stored::public;

/// Why a stored event cannot be published.
#[derive(Debug, thiserror::Error)]
#[error("event {event_id} at {topic}/{shard}:{position} cannot be translated")]
pub struct Untranslatable {
    event_id: Uuid,
    topic: &'static str,
    shard: u16,
    position: u64,
    #[source]
    reason: Reason,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("its JSON does not fit its type")]
    Decode(#[from] serde_json::Error),
    #[error("no aggregate has the code {0}")]
    Aggregate(i16),
    #[error("it has no number in its conversation")]
    Unnumbered,
}

/// The public record of a stored event.
///
/// # Errors
/// An event that this version of the program does not know, or that is not what the store wrote.
pub fn translate(stored: &StoredEvent, upcasters: &Upcasters) -> Result<Record, Untranslatable> {
    let event = event(stored, upcasters).map_err(|reason| Untranslatable {
        event_id: stored.event_id,
        topic: public(stored.topic).name(),
        shard: stored.shard,
        position: stored.position,
        reason,
    })?;
    let context = stored.metadata.as_deref();
    Ok(Record {
        topic: public(stored.topic),
        shard: stored.shard,
        position: stored.position,
        event_id: stored.event_id,
        key: stored.key,
        at: stored.at,
        correlation: context.and_then(|context| context.correlation_id.as_deref()).map(Box::from),
        causation: context.and_then(|context| context.causation_id),
        trace: context.and_then(|context| context.traceparent.as_deref()).map(Box::from),
        session: context.and_then(|context| context.session_id),
        event,
    })
}

fn event(stored: &StoredEvent, upcasters: &Upcasters) -> Result<Event, Reason> {
    match stored.aggregate_type {
        User::CODE => Ok(user(stored, stored.decode::<User>(upcasters)?)),
        audit::Reading::CODE => Ok(reading(stored, stored.decode::<audit::Reading>(upcasters)?)),
        Session::CODE => Ok(session(stored, stored.decode::<Session>(upcasters)?)),
        Conversation::CODE => numbered(stored, conversation(stored.decode::<Conversation>(upcasters)?)),
        message::Message::CODE => {
            let seq = stored.seq.ok_or(Reason::Unnumbered)?;
            numbered(stored, message(stored, seq, stored.decode::<message::Message>(upcasters)?))
        }
        Receipt::CODE => Ok(receipt(stored, stored.decode::<Receipt>(upcasters)?)),
        unknown => Err(Reason::Aggregate(unknown)),
    }
}

fn user(stored: &StoredEvent, event: UserEvent) -> Event {
    let (user_id, at) = (stored.aggregate_id, stored.at);
    let role = |role| UserRoleChanged { user_id, role: user_role(role), at };
    match event {
        UserEvent::Registered(made) => Event::UserRegistered(UserRegistered {
            user_id,
            username: Some(made.username),
            display_name: made.display_name,
            email: Some(made.email),
            at,
        }),
        UserEvent::ProfileChanged(profile) => Event::UserProfileChanged(UserProfileChanged {
            user_id,
            display_name: profile.display_name,
            avatar_file_id: profile.avatar_file_id,
            at,
        }),
        UserEvent::PasswordChanged(_) => Event::UserPasswordChanged(UserChanged { user_id, at }),
        UserEvent::RoleGranted(granted) => Event::UserRoleGranted(role(granted.role)),
        UserEvent::RoleRevoked(revoked) => Event::UserRoleRevoked(role(revoked.role)),
    }
}

fn user_role(role: user::Role) -> UserRole {
    match role {
        user::Role::Operator => UserRole::Operator,
    }
}

fn reading(stored: &StoredEvent, event: ReadingEvent) -> Event {
    match event {
        ReadingEvent::AuditRead(audit::AuditRead { actor, object, event_type, since, until }) => {
            let filters = AuditFilters { actor, object, event_type, since, until };
            Event::AuditRead(AuditRead { user_id: stored.key, filters, at: stored.at })
        }
    }
}

fn session(stored: &StoredEvent, event: SessionEvent) -> Event {
    let changed = |device_id, device_name, client: Client| SessionChanged {
        user_id: stored.key,
        session_id: stored.aggregate_id,
        device_id,
        device_name,
        address: client.address,
        user_agent: client.user_agent,
        at: stored.at,
    };
    match event {
        SessionEvent::Started(started) => {
            Event::SessionStarted(changed(started.device_id, started.device_name, started.client))
        }
        SessionEvent::Refreshed(refreshed) => {
            Event::SessionRefreshed(changed(refreshed.device_id, None, refreshed.client))
        }
        SessionEvent::Revoked(revoked) => Event::SessionRevoked(changed(revoked.device_id, None, Client::default())),
        SessionEvent::ReuseDetected(reuse) => Event::SessionReuseDetected(changed(reuse.device_id, None, reuse.client)),
    }
}

fn numbered(stored: &StoredEvent, body: Body) -> Result<Event, Reason> {
    let seq = stored.seq.ok_or(Reason::Unnumbered)?;
    Ok(Event::Numbered(Numbered { conversation_id: stored.key, seq, at: stored.at, body }))
}

fn conversation(event: ConversationEvent) -> Body {
    match event {
        ConversationEvent::Created(created) => Body::Created(ConversationCreated {
            kind: kind(created.kind),
            name: created.name,
            history: history(created.history),
            members: created
                .members
                .into_iter()
                .map(|(user_id, as_what)| InitialMember { user_id, role: role(as_what) })
                .collect(),
            by: created.by,
        }),
        ConversationEvent::Renamed(renamed) => {
            Body::Renamed(ConversationRenamed { name: renamed.name, by: renamed.by })
        }
        ConversationEvent::SettingsChanged(settings) => {
            Body::SettingsChanged(SettingsChanged { history: history(settings.history), by: settings.by })
        }
        ConversationEvent::MemberJoined(joined) => {
            Body::MemberJoined(MemberJoined { user_id: joined.user_id, role: role(joined.role), by: joined.by })
        }
        ConversationEvent::MemberLeft(left) => Body::MemberLeft(MemberLeft { user_id: left.user_id, by: left.by }),
        ConversationEvent::MemberRoleChanged(changed) => Body::MemberRoleChanged(MemberRoleChanged {
            user_id: changed.user_id,
            role: role(changed.role),
            by: changed.by,
        }),
    }
}

fn message(stored: &StoredEvent, seq: u64, event: MessageEvent) -> Body {
    match event {
        MessageEvent::Sent(sent) => Body::MessageSent(Box::new(Message {
            message_id: stored.aggregate_id,
            conversation_id: stored.key,
            seq,
            sender_id: sent.sender_id,
            kind: sent.kind,
            content: Some(sent.content),
            file_ids: vec![],
            reply_to: sent.reply_to,
            mentions: sent.mentions,
            created_at: stored.at,
            edited_at: None,
            deleted: false,
        })),
    }
}

fn receipt(stored: &StoredEvent, event: ReceiptEvent) -> Event {
    let moved = |marks: Watermarks, up_to| ReceiptMoved {
        conversation_id: stored.key,
        user_id: marks.user_id,
        device_id: marks.device_id,
        up_to,
        delivered_to: marks.delivered_to,
        read_to: marks.read_to,
        at: stored.at,
    };
    match event {
        ReceiptEvent::Delivered(marks) => {
            let up_to = marks.delivered_to;
            Event::MessageDelivered(moved(marks, up_to))
        }
        ReceiptEvent::Read(marks) => {
            let up_to = marks.read_to;
            Event::MessageRead(moved(marks, up_to))
        }
    }
}

fn kind(kind: conversation::Kind) -> Kind {
    match kind {
        conversation::Kind::Direct => Kind::Direct,
        conversation::Kind::Group => Kind::Group,
    }
}

fn history(history: conversation::History) -> History {
    match history {
        conversation::History::All => History::All,
        conversation::History::SinceJoin => History::SinceJoin,
    }
}

fn role(role: conversation::Role) -> Role {
    match role {
        conversation::Role::Member => Role::Member,
        conversation::Role::Admin => Role::Admin,
        conversation::Role::Owner => Role::Owner,
    }
}

#[cfg(test)]
mod contract;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use domain::kernel::{LogTopic, Payload};
    use event_store::Context;
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;

    pub(super) const ANN: Uuid = Uuid::from_u128(1);
    pub(super) const BEN: Uuid = Uuid::from_u128(2);
    pub(super) const ROOM: Uuid = Uuid::from_u128(3);
    pub(super) const THING: Uuid = Uuid::from_u128(4);

    /// As the store would keep it.
    pub(super) fn stored<A: Stored>(key: Uuid, id: Uuid, seq: Option<u64>, event: &A::Event) -> StoredEvent {
        StoredEvent {
            topic: A::TOPIC,
            shard: 5,
            position: 8,
            key,
            seq,
            aggregate_type: A::CODE,
            aggregate_id: id,
            sequence: 1,
            event_id: Uuid::from_u128(9),
            event_type: event.type_name().into(),
            event_version: event.version(),
            at: datetime!(2026-01-02 03:04:05.006 UTC),
            payload: event.encode().unwrap().into(),
            metadata: None,
            hash: [0; 32],
        }
    }

    fn public_json<A: Stored>(key: Uuid, id: Uuid, seq: Option<u64>, event: &A::Event) -> Value {
        let record = translate(&stored::<A>(key, id, seq, event), &Upcasters::default()).unwrap();
        assert_eq!(record.event.event_type(), event.type_name());
        assert_eq!(record.event.topic(), record.topic);
        record.event.data().unwrap()
    }

    #[test]
    fn users_without_their_secrets() {
        let registered = domain::user::Registered {
            username: "ann".into(),
            email: "Ann@example.org".into(),
            display_name: None,
            password_hash: "secret".into(),
        };
        assert_eq!(
            public_json::<User>(ANN, ANN, None, &registered.into()),
            json!({"user_id": ANN, "username": "ann", "display_name": null, "email": "Ann@example.org",
                   "at": "2026-01-02T03:04:05.006Z"})
        );
        let changed = domain::user::PasswordChanged { password_hash: "secret".into() };
        assert_eq!(
            public_json::<User>(ANN, ANN, None, &changed.into()),
            json!({"user_id": ANN, "at": "2026-01-02T03:04:05.006Z"})
        );
    }

    #[test]
    fn sessions_without_their_tokens() {
        let at = datetime!(2026-01-02 03:04:05 UTC);
        let started = domain::session::Started {
            device_id: BEN,
            device_name: Some("phone".into()),
            refresh_hash: "secret".into(),
            refresh_expires_at: at,
            ends_at: at,
            client: Client { address: Some("10.0.0.1".into()), user_agent: None },
        };
        assert_eq!(
            public_json::<Session>(ANN, THING, None, &started.into()),
            json!({"user_id": ANN, "session_id": THING, "device_id": BEN, "device_name": "phone",
                   "address": "10.0.0.1", "user_agent": null, "at": "2026-01-02T03:04:05.006Z"})
        );
    }

    #[test]
    fn roles_and_who_read_the_audit() {
        let granted = user::RoleGranted { role: user::Role::Operator };
        let data = public_json::<User>(ANN, ANN, None, &granted.into());
        assert_eq!(data, json!({"user_id": ANN, "role": "operator", "at": "2026-01-02T03:04:05.006Z"}));
        let read = audit::AuditRead { actor: Some(BEN), ..audit::AuditRead::default() };
        let data = public_json::<audit::Reading>(ANN, THING, None, &read.into());
        let filters = json!({"actor": BEN, "object": null, "type": null, "since": null, "until": null});
        assert_eq!((&data["user_id"], &data["filters"]), (&json!(ANN), &filters));
    }

    #[test]
    fn a_conversation_and_what_is_said_in_it() {
        let created = conversation::Created {
            kind: conversation::Kind::Group,
            name: Some("room".into()),
            history: conversation::History::SinceJoin,
            members: vec![(ANN, conversation::Role::Owner), (BEN, conversation::Role::Member)],
            by: ANN,
        };
        assert_eq!(
            public_json::<Conversation>(ROOM, ROOM, Some(1), &created.into()),
            json!({"conversation_id": ROOM, "seq": 1, "at": "2026-01-02T03:04:05.006Z", "type": "group",
                   "name": "room", "history": "since_join", "by": ANN,
                   "members": [{"user_id": ANN, "role": "owner"}, {"user_id": BEN, "role": "member"}]})
        );
        let sent = message::Sent {
            sender_id: ANN,
            kind: "text".into(),
            content: "hello".into(),
            reply_to: None,
            mentions: vec![BEN],
        };
        let data = public_json::<message::Message>(ROOM, THING, Some(2), &sent.into());
        assert_eq!((&data["message_id"], &data["seq"]), (&json!(THING), &json!(2)));
        assert_eq!((&data["content"], &data["mentions"]), (&json!("hello"), &json!([BEN])));
    }

    #[test]
    fn each_receipt_says_which_watermark_moved() {
        let marks = Watermarks { user_id: BEN, device_id: None, delivered_to: 7, read_to: 5 };
        let data = |event| public_json::<Receipt>(ROOM, THING, None, &event);
        assert_eq!(data(ReceiptEvent::Delivered(marks.clone()))["up_to"], 7);
        let read = data(ReceiptEvent::Read(marks));
        assert_eq!(
            (&read["up_to"], &read["delivered_to"], &read["conversation_id"]),
            (&json!(5), &json!(7), &json!(ROOM))
        );
    }

    #[test]
    fn the_envelope_says_where_it_came_from() {
        let renamed = conversation::Renamed { name: "x".into(), by: ANN };
        let mut event = stored::<Conversation>(ROOM, ROOM, Some(2), &renamed.into());
        event.metadata = Some(Arc::new(Context {
            correlation_id: Some("request".into()),
            causation_id: Some(THING),
            traceparent: None,
            session_id: Some(ROOM),
        }));
        let record = translate(&event, &Upcasters::default()).unwrap();
        assert_eq!((record.topic, record.shard, record.position), (public(LogTopic::Conversations), 5, 8));
        assert_eq!((&*record.correlation_id(), record.causation, record.key), ("request", Some(THING), ROOM));
        assert_eq!(record.session, Some(ROOM));
    }

    #[test]
    fn what_is_not_known_is_an_error_that_names_the_place_and_no_content() {
        let renamed = conversation::Renamed { name: "secret".into(), by: ANN };
        let good = stored::<Conversation>(ROOM, ROOM, Some(2), &renamed.into());
        for bad in [
            StoredEvent { aggregate_type: 99, ..good.clone() },
            StoredEvent { event_type: "conversation.exploded".into(), ..good.clone() },
            StoredEvent { payload: "{\"name\": 7}".into(), ..good.clone() },
            StoredEvent { seq: None, ..good },
        ] {
            let error = translate(&bad, &Upcasters::default()).unwrap_err();
            assert!(error.to_string().contains("parlance.conversations.v1/5:8"), "{error}");
        }
    }
}
