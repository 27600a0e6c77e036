//! Every type of public event: its topic, its versions, the schemas of its data.
//!
//! The types of this crate describe the newest version of each schema; earlier ones are files that never change again.

mod schema;
#[cfg(test)]
pub(crate) mod tests;

use std::borrow::Cow;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

pub use schema::{DIALECT, text};
pub(crate) use schema::{named, reference};

use crate::{
    AuditRead, ConversationCreated, ConversationRenamed, DEFAULT_BASE, MemberJoined, MemberLeft, MemberRoleChanged,
    Message, ReceiptMoved, SessionChanged, SettingsChanged, Topic, UserChanged, UserProfileChanged, UserRegistered,
    UserRoleChanged,
};

/// A type of event.
#[derive(Clone, Copy, Debug)]
pub struct EventType {
    /// The type, `ce_type` in Kafka.
    pub name: &'static str,
    /// The topic.
    pub topic: Topic,
    /// Whether it counts in its conversation, and so is a frame of the WebSocket too.
    pub numbered: bool,
    /// What it says, in words.
    pub summary: &'static str,
    /// A record of it as it stands in Kafka: one of the fixtures.
    pub example: &'static str,
    /// The schemas of all versions but the newest, as they were published, from 1.
    earlier: Earlier,
    schema: Schemer,
}

/// The reference to a type's schema, which it adds to those of a document, with all that it refers to.
type Schemer = fn(&mut Map<String, Value>) -> Value;

/// The documents of the versions before the newest.
type Earlier = &'static [&'static str];

/// There are none. A second version has instead: `&[include_str!("../../json/TYPE/1.json")]`.
const FIRST: Earlier = &[];

const fn of(
    topic: Topic,
    name: &'static str,
    earlier: Earlier,
    summary: &'static str,
    schema: Schemer,
    example: &'static str,
) -> EventType {
    EventType { name, topic, numbered: false, summary, example, earlier, schema }
}

const fn numbered(
    name: &'static str,
    earlier: Earlier,
    summary: &'static str,
    schema: Schemer,
    example: &'static str,
) -> EventType {
    EventType { numbered: true, ..of(Topic::Conversations, name, earlier, summary, schema, example) }
}

/// A record among the fixtures.
macro_rules! fixture {
    ($path:literal) => {
        include_str!(concat!("../../fixtures/", $path, ".json"))
    };
}

/// The types: what makes one also lists it.
macro_rules! event_types {
    ($($constant:ident = $kind:expr;)+) => {
        $(pub(crate) static $constant: EventType = $kind;)+

        /// All of them.
        pub static EVENT_TYPES: &[&EventType] = &[$(&$constant),+];
    };
}

event_types! {
    USER_REGISTERED = of(
        Topic::Users,
        "user.registered",
        FIRST,
        "Somebody registered.",
        named::<UserRegistered>,
        fixture!("user.registered/1/with_display_name"),
    );
    USER_PROFILE_CHANGED = of(
        Topic::Users,
        "user.profile_changed",
        FIRST,
        "A profile, as it is from now on.",
        named::<UserProfileChanged>,
        fixture!("user.profile_changed/1/with_avatar"),
    );
    USER_PASSWORD_CHANGED = of(
        Topic::Users,
        "user.password_changed",
        FIRST,
        "A password changed; not which.",
        named::<UserChanged>,
        fixture!("user.password_changed/1/changed"),
    );
    USER_ROLE_GRANTED = of(
        Topic::Users,
        "user.role_granted",
        FIRST,
        "A user may do more from now on.",
        named::<UserRoleChanged>,
        fixture!("user.role_granted/1/operator"),
    );
    USER_ROLE_REVOKED = of(
        Topic::Users,
        "user.role_revoked",
        FIRST,
        "A user may do so no longer.",
        named::<UserRoleChanged>,
        fixture!("user.role_revoked/1/operator"),
    );
    USER_AUDIT_READ = of(
        Topic::Users,
        "user.audit_read",
        FIRST,
        "An operator read the audit.",
        named::<AuditRead>,
        fixture!("user.audit_read/1/filtered"),
    );
    SESSION_STARTED = of(
        Topic::Users,
        "session.started",
        &[include_str!("../../json/session.started/1.json")],
        "Somebody logged in on a device.",
        named::<SessionChanged>,
        fixture!("session.started/2/named_device"),
    );
    SESSION_REFRESHED = of(
        Topic::Users,
        "session.refreshed",
        &[include_str!("../../json/session.refreshed/1.json")],
        "A session goes on.",
        named::<SessionChanged>,
        fixture!("session.refreshed/2/refreshed"),
    );
    SESSION_REVOKED = of(
        Topic::Users,
        "session.revoked",
        &[include_str!("../../json/session.revoked/1.json")],
        "A session ended.",
        named::<SessionChanged>,
        fixture!("session.revoked/2/logged_out"),
    );
    SESSION_REUSE_DETECTED = of(
        Topic::Users,
        "session.reuse_detected",
        &[include_str!("../../json/session.reuse_detected/1.json")],
        "A spent refresh token was used again; `session.revoked` follows.",
        named::<SessionChanged>,
        fixture!("session.reuse_detected/2/detected"),
    );
    CONVERSATION_CREATED = numbered(
        "conversation.created",
        FIRST,
        "A conversation was opened; always number 1.",
        named::<ConversationCreated>,
        fixture!("conversation.created/1/group"),
    );
    CONVERSATION_RENAMED = numbered(
        "conversation.renamed",
        FIRST,
        "A group has another name.",
        named::<ConversationRenamed>,
        fixture!("conversation.renamed/1/renamed"),
    );
    CONVERSATION_SETTINGS_CHANGED = numbered(
        "conversation.settings_changed",
        FIRST,
        "What members see of the time before them.",
        named::<SettingsChanged>,
        fixture!("conversation.settings_changed/1/since_join"),
    );
    CONVERSATION_MEMBER_JOINED = numbered(
        "conversation.member_joined",
        FIRST,
        "Somebody came in later.",
        named::<MemberJoined>,
        fixture!("conversation.member_joined/1/as_member"),
    );
    CONVERSATION_MEMBER_LEFT = numbered(
        "conversation.member_left",
        FIRST,
        "Somebody left or was removed.",
        named::<MemberLeft>,
        fixture!("conversation.member_left/1/removed"),
    );
    CONVERSATION_MEMBER_ROLE_CHANGED = numbered(
        "conversation.member_role_changed",
        FIRST,
        "A member has another role.",
        named::<MemberRoleChanged>,
        fixture!("conversation.member_role_changed/1/to_admin"),
    );
    MESSAGE_SENT = numbered(
        "message.sent",
        FIRST,
        "Somebody said something.",
        named::<Message>,
        fixture!("message.sent/1/reply_with_mentions"),
    );
    MESSAGE_DELIVERED = of(
        Topic::Conversations,
        "message.delivered",
        FIRST,
        "Everything up to a number is on a device of a member's.",
        named::<ReceiptMoved>,
        fixture!("message.delivered/1/by_device"),
    );
    MESSAGE_READ = of(
        Topic::Conversations,
        "message.read",
        FIRST,
        "A member has read everything up to a number.",
        named::<ReceiptMoved>,
        fixture!("message.read/1/by_device"),
    );
}

/// The type of that name.
pub fn find(name: &str) -> Option<&'static EventType> {
    EVENT_TYPES.iter().copied().find(|kind| kind.name == name)
}

/// The document that stands at `/schemas/NAME/VERSION.json`.
pub fn schema_document(name: &str, version: &str) -> Option<Cow<'static, str>> {
    let kind = find(name)?;
    // As it is written, and not otherwise: one address a document.
    let version = kind.versions().find(|known| known.to_string() == version)?;
    Some(kind.document(version))
}

impl EventType {
    /// The newest version of its schema, which records are written by.
    pub fn version(&self) -> u16 {
        u16::try_from(self.earlier.len() + 1).expect("a type has few versions")
    }

    /// All versions that there are, or were.
    pub fn versions(&self) -> RangeInclusive<u16> {
        1..=self.version()
    }

    /// Where the document of a version is served, and what `ce_dataschema` ends with.
    pub fn path(&self, version: u16) -> String {
        format!("/schemas/{}/{version}.json", self.name)
    }

    /// The document of one of its versions, as it is served.
    pub fn document(&self, version: u16) -> Cow<'static, str> {
        match self.earlier.get(usize::from(version).saturating_sub(1)) {
            Some(published) => Cow::Borrowed(published),
            None => Cow::Owned(text(&self.json_schema())),
        }
    }

    /// The schema of one of its versions.
    pub fn schema(&self, version: u16) -> Value {
        match self.earlier.get(usize::from(version).saturating_sub(1)) {
            Some(published) => serde_json::from_str(published).expect("what was published is JSON"),
            None => self.json_schema(),
        }
    }

    /// The schema of what the event says: `data` of its WebSocket frame where it is numbered.
    ///
    /// Types that it refers to are added to `schemas`, by name.
    pub fn body_schema(&self, schemas: &mut Map<String, Value>) -> Value {
        (self.schema)(schemas)
    }

    /// The schema of its record's data by the newest version, whole, as JSON Schema 2020-12.
    pub fn json_schema(&self) -> Value {
        let version = self.version();
        let before = (version > 1).then(|| self.schema(version - 1));
        let mut schema = schema::of_data(self.schema, self.numbered, before.as_ref());
        schema["$schema"] = DIALECT.into();
        schema["$id"] = format!("{DEFAULT_BASE}{}", self.path(version)).into();
        schema["title"] = self.name.into();
        schema["description"] = self.summary.into();
        schema
    }
}
