//! The public event contract: envelope, versioned events, catalogue of types and topics; and the bodies and frames
//! that clients exchange with the servers.
//!
//! Nothing private stands here: what the log keeps is translated into these types at the edge, by the relay.

pub mod asyncapi;
pub mod binary_mode;
pub mod catalogue;
mod cloud_event;
pub mod compatibility;
mod conversation;
mod event;
mod identity;
mod position;
mod record;
pub mod rest;
pub mod rfc3339_ms;
mod session;
pub mod structured_mode;
mod topic;
mod user;
#[cfg(test)]
mod validation;
pub mod ws;

pub use cloud_event::{CloudEvent, DEFAULT_BASE};
pub use conversation::{
    Body, ConversationCreated, ConversationRenamed, History, InitialMember, Kind, MemberJoined, MemberLeft,
    MemberRoleChanged, Message, Numbered, ReceiptMoved, Role, SettingsChanged,
};
pub use event::{Event, EventError};
pub use position::{Position, PositionError, PositionToken};
pub use record::Record;
pub use session::SessionChanged;
pub use topic::{Topic, TopicSetting};
pub use user::{AuditFilters, AuditRead, UserChanged, UserProfileChanged, UserRegistered, UserRole, UserRoleChanged};
