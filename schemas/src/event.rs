//! Every public event.

use serde_json::Value;

use crate::{
    Numbered, ReceiptMoved, SessionChanged, Topic, UserChanged, UserProfileChanged, UserRegistered, rfc3339_ms,
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
    /// The type, `ce_type` in Kafka.
    pub fn event_type(&self) -> &'static str {
        match self {
            Self::UserRegistered(_) => "user.registered",
            Self::UserProfileChanged(_) => "user.profile_changed",
            Self::UserPasswordChanged(_) => "user.password_changed",
            Self::SessionStarted(_) => "session.started",
            Self::SessionRefreshed(_) => "session.refreshed",
            Self::SessionRevoked(_) => "session.revoked",
            Self::SessionReuseDetected(_) => "session.reuse_detected",
            Self::Numbered(numbered) => numbered.body.event_type(),
            Self::MessageDelivered(_) => "message.delivered",
            Self::MessageRead(_) => "message.read",
        }
    }

    /// The version of the type's schema that [`Event::data`] follows.
    pub fn version(&self) -> u16 {
        1
    }

    /// The topic.
    pub fn topic(&self) -> Topic {
        match self {
            Self::UserRegistered(_)
            | Self::UserProfileChanged(_)
            | Self::UserPasswordChanged(_)
            | Self::SessionStarted(_)
            | Self::SessionRefreshed(_)
            | Self::SessionRevoked(_)
            | Self::SessionReuseDetected(_) => Topic::Users,
            Self::Numbered(_) | Self::MessageDelivered(_) | Self::MessageRead(_) => Topic::Conversations,
        }
    }

    /// The record's data.
    ///
    /// # Errors
    /// None for these types; serde's signature has one.
    pub fn data(&self) -> serde_json::Result<Value> {
        match self {
            Self::UserRegistered(data) => serde_json::to_value(data),
            Self::UserProfileChanged(data) => serde_json::to_value(data),
            Self::UserPasswordChanged(data) => serde_json::to_value(data),
            Self::SessionStarted(data)
            | Self::SessionRefreshed(data)
            | Self::SessionRevoked(data)
            | Self::SessionReuseDetected(data) => serde_json::to_value(data),
            Self::MessageDelivered(data) | Self::MessageRead(data) => serde_json::to_value(data),
            Self::Numbered(numbered) => {
                let mut data = serde_json::to_value(&numbered.body)?;
                data["conversation_id"] = serde_json::to_value(numbered.conversation_id)?;
                data["seq"] = numbered.seq.into();
                data["at"] = rfc3339_ms::Display(numbered.at).to_string().into();
                Ok(data)
            }
        }
    }
}
