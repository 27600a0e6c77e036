//! Every public event.

use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::catalogue::{self, EventType};
use crate::{
    AuditRead, Body, Message, Numbered, ReceiptMoved, SessionChanged, Topic, UserChanged, UserProfileChanged,
    UserRegistered, UserRoleChanged, rfc3339_ms,
};

/// A public event, by type.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// `user.registered`
    UserRegistered(UserRegistered),
    /// `user.profile_changed`
    UserProfileChanged(UserProfileChanged),
    /// `user.password_changed`
    UserPasswordChanged(UserChanged),
    /// `user.role_granted`
    UserRoleGranted(UserRoleChanged),
    /// `user.role_revoked`
    UserRoleRevoked(UserRoleChanged),
    /// `user.audit_read`
    AuditRead(AuditRead),
    /// `session.started`
    SessionStarted(SessionChanged),
    /// `session.refreshed`
    SessionRefreshed(SessionChanged),
    /// `session.revoked`
    SessionRevoked(SessionChanged),
    /// `session.reuse_detected`
    SessionReuseDetected(SessionChanged),
    /// Those that count in their conversation.
    Numbered(Numbered),
    /// `message.delivered`
    MessageDelivered(ReceiptMoved),
    /// `message.read`
    MessageRead(ReceiptMoved),
}

impl Event {
    /// What is known of its type. No wildcard: a new variant does not compile until it is in the catalogue.
    pub fn kind(&self) -> &'static EventType {
        match self {
            Self::UserRegistered(_) => &catalogue::USER_REGISTERED,
            Self::UserProfileChanged(_) => &catalogue::USER_PROFILE_CHANGED,
            Self::UserPasswordChanged(_) => &catalogue::USER_PASSWORD_CHANGED,
            Self::UserRoleGranted(_) => &catalogue::USER_ROLE_GRANTED,
            Self::UserRoleRevoked(_) => &catalogue::USER_ROLE_REVOKED,
            Self::AuditRead(_) => &catalogue::USER_AUDIT_READ,
            Self::SessionStarted(_) => &catalogue::SESSION_STARTED,
            Self::SessionRefreshed(_) => &catalogue::SESSION_REFRESHED,
            Self::SessionRevoked(_) => &catalogue::SESSION_REVOKED,
            Self::SessionReuseDetected(_) => &catalogue::SESSION_REUSE_DETECTED,
            Self::Numbered(numbered) => numbered.body.kind(),
            Self::MessageDelivered(_) => &catalogue::MESSAGE_DELIVERED,
            Self::MessageRead(_) => &catalogue::MESSAGE_READ,
        }
    }

    /// The type, `ce_type` in Kafka.
    pub fn event_type(&self) -> &'static str {
        self.kind().name
    }

    /// The version of the type's schema that [`Event::data`] follows: the newest.
    pub fn version(&self) -> u16 {
        self.kind().version()
    }

    /// The topic.
    pub fn topic(&self) -> Topic {
        self.kind().topic
    }

    /// The record's data.
    ///
    /// # Errors
    /// None for these types; serde's signature has one.
    pub fn data(&self) -> serde_json::Result<Value> {
        serde_json::to_value(Data(self))
    }

    /// The record's data as JSON text.
    ///
    /// # Errors
    /// None for these types; serde's signature has one.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Data(self))
    }

    /// The event of a type and a version of its schema, from a record's data.
    ///
    /// Versions only gain optional members, so a newer one is read as the newest that is known here.
    ///
    /// # Errors
    /// A type that is not known here, or data that are not what its schema says.
    pub fn from_json(event_type: &str, json: &[u8]) -> Result<Self, EventError> {
        let numbered = |body: Body| {
            let Place { conversation_id, seq, at } = read(json)?;
            Ok(Self::Numbered(Numbered { conversation_id, seq, at, body }))
        };
        match event_type {
            "user.registered" => read(json).map(Self::UserRegistered),
            "user.profile_changed" => read(json).map(Self::UserProfileChanged),
            "user.password_changed" => read(json).map(Self::UserPasswordChanged),
            "user.role_granted" => read(json).map(Self::UserRoleGranted),
            "user.role_revoked" => read(json).map(Self::UserRoleRevoked),
            "user.audit_read" => read(json).map(Self::AuditRead),
            "session.started" => read(json).map(Self::SessionStarted),
            "session.refreshed" => read(json).map(Self::SessionRefreshed),
            "session.revoked" => read(json).map(Self::SessionRevoked),
            "session.reuse_detected" => read(json).map(Self::SessionReuseDetected),
            "conversation.created" => numbered(Body::Created(read(json)?)),
            "conversation.renamed" => numbered(Body::Renamed(read(json)?)),
            "conversation.settings_changed" => numbered(Body::SettingsChanged(read(json)?)),
            "conversation.member_joined" => numbered(Body::MemberJoined(read(json)?)),
            "conversation.member_left" => numbered(Body::MemberLeft(read(json)?)),
            "conversation.member_role_changed" => numbered(Body::MemberRoleChanged(read(json)?)),
            "message.sent" => numbered(Body::MessageSent(read(json)?)),
            "message.delivered" => read(json).map(Self::MessageDelivered),
            "message.read" => read(json).map(Self::MessageRead),
            _ => Err(EventError::Unknown),
        }
    }
}

/// Why data are no event. Holds nothing of what they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// A type that this version of the program does not know.
    #[error("its type is not known here")]
    Unknown,
    /// The data do not follow the type's schema.
    #[error("its data do not follow their schema: line {line}, column {column}")]
    Malformed {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
}

fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, EventError> {
    // What serde says may quote the data.
    serde_json::from_slice(json).map_err(|error| EventError::Malformed { line: error.line(), column: error.column() })
}

/// Where and when a numbered event happened, beside what it says.
#[derive(Serialize, Deserialize)]
struct Place {
    conversation_id: Uuid,
    seq: u64,
    #[serde(with = "rfc3339_ms")]
    at: OffsetDateTime,
}

/// An event as the data of its record.
struct Data<'a>(&'a Event);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Placed<'a> {
            #[serde(flatten)]
            place: Place,
            #[serde(flatten)]
            body: &'a Body,
        }
        /// A message says itself where it stands.
        #[derive(Serialize)]
        struct Sent<'a> {
            #[serde(flatten)]
            message: &'a Message,
            #[serde(with = "rfc3339_ms")]
            at: OffsetDateTime,
        }
        match self.0 {
            Event::UserRegistered(data) => data.serialize(serializer),
            Event::UserProfileChanged(data) => data.serialize(serializer),
            Event::UserPasswordChanged(data) => data.serialize(serializer),
            Event::UserRoleGranted(data) | Event::UserRoleRevoked(data) => data.serialize(serializer),
            Event::AuditRead(data) => data.serialize(serializer),
            Event::SessionStarted(data)
            | Event::SessionRefreshed(data)
            | Event::SessionRevoked(data)
            | Event::SessionReuseDetected(data) => data.serialize(serializer),
            Event::MessageDelivered(data) | Event::MessageRead(data) => data.serialize(serializer),
            Event::Numbered(Numbered { at, body: Body::MessageSent(message), .. }) => {
                Sent { message, at: *at }.serialize(serializer)
            }
            Event::Numbered(Numbered { conversation_id, seq, at, body }) => {
                let place = Place { conversation_id: *conversation_id, seq: *seq, at: *at };
                Placed { place, body }.serialize(serializer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::tests::samples;

    #[test]
    fn every_event_comes_back_from_its_data() {
        for event in samples() {
            let json = event.to_json().unwrap();
            assert_eq!(Event::from_json(event.event_type(), &json), Ok(event));
        }
    }

    #[test]
    fn members_that_came_later_are_passed_over() {
        for event in samples() {
            let mut data = event.data().unwrap();
            data["added_later"] = "something".into();
            assert_eq!(Event::from_json(event.event_type(), data.to_string().as_bytes()), Ok(event));
        }
    }

    #[test]
    fn what_is_no_event_is_told_without_a_word_of_it() {
        assert_eq!(Event::from_json("message.exploded", b"{}"), Err(EventError::Unknown));
        let error = Event::from_json("message.sent", br#"{"message_id": "a secret"}"#).unwrap_err();
        assert!(matches!(error, EventError::Malformed { line: 1, .. }));
        assert!(!error.to_string().contains("secret"));
    }
}
