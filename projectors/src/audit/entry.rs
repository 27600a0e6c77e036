//! What an event is to the audit.

use schemas::{Body, Event, Numbered, Record, SessionChanged};
use uuid::Uuid;

/// Who did something, to what, and from where.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// `None` where no user did it.
    pub(super) actor: Option<Uuid>,
    pub(super) object_type: &'static str,
    pub(super) object: Uuid,
    pub(super) conversation: Option<Uuid>,
    pub(super) session: Option<Uuid>,
    pub(super) device: Option<Uuid>,
    pub(super) address: Option<&'a str>,
    pub(super) user_agent: Option<&'a str>,
}

impl<'a> Entry<'a> {
    pub(super) fn of(record: &'a Record) -> Self {
        let entry = match &record.event {
            Event::UserRegistered(user) => Self::new(Some(user.user_id), "user", user.user_id),
            Event::UserProfileChanged(user) => Self::new(Some(user.user_id), "user", user.user_id),
            Event::UserPasswordChanged(user) => Self::new(Some(user.user_id), "user", user.user_id),
            // By whoever has the database.
            Event::UserRoleGranted(user) | Event::UserRoleRevoked(user) => Self::new(None, "user", user.user_id),
            Event::AuditRead(reading) => Self::new(Some(reading.user_id), "user", reading.user_id),
            Event::SessionStarted(session)
            | Event::SessionRefreshed(session)
            | Event::SessionRevoked(session)
            | Event::SessionReuseDetected(session) => Self::of_session(session),
            Event::Numbered(numbered) => Self::of_numbered(numbered),
            Event::MessageDelivered(moved) | Event::MessageRead(moved) => Self {
                conversation: Some(moved.conversation_id),
                device: moved.device_id,
                ..Self::new(Some(moved.user_id), "conversation", moved.conversation_id)
            },
        };
        Self { session: record.session.or(entry.session), ..entry }
    }

    fn new(actor: Option<Uuid>, object_type: &'static str, object: Uuid) -> Self {
        let (conversation, session, device) = (None, None, None);
        Self { actor, object_type, object, conversation, session, device, address: None, user_agent: None }
    }

    fn of_session(session: &'a SessionChanged) -> Self {
        Self {
            session: Some(session.session_id),
            device: Some(session.device_id),
            address: session.address.as_deref(),
            user_agent: session.user_agent.as_deref(),
            ..Self::new(Some(session.user_id), "session", session.session_id)
        }
    }

    fn of_numbered(Numbered { conversation_id, body, .. }: &'a Numbered) -> Self {
        let of_conversation = |by| Self::new(Some(by), "conversation", *conversation_id);
        let entry = match body {
            Body::Created(created) => of_conversation(created.by),
            Body::Renamed(renamed) => of_conversation(renamed.by),
            Body::SettingsChanged(settings) => of_conversation(settings.by),
            Body::MemberJoined(joined) => Self::new(Some(joined.by), "user", joined.user_id),
            Body::MemberLeft(left) => Self::new(Some(left.by), "user", left.user_id),
            Body::MemberRoleChanged(changed) => Self::new(Some(changed.by), "user", changed.user_id),
            Body::MessageSent(message) => Self::new(Some(message.sender_id), "message", message.message_id),
        };
        Self { conversation: Some(*conversation_id), ..entry }
    }
}
