//! What callers hand to the store: commands, what they read, and what comes back.

use std::sync::Arc;

use domain::kernel::{LogTopic, Stored};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::kind::{Kind, KindOf};
use crate::workspace::Workspace;

/// A unit of work on one ordering key.
///
/// `decide` is pure and may run several times. It sees the events of the commands before it in the same batch, and
/// leaves no trace when it refuses.
pub trait Command: Send + 'static {
    /// What the caller is told.
    type Output: Send + 'static;
    /// Why it may be refused.
    type Refusal: Send + 'static;

    /// Where its events go.
    fn topic(&self) -> LogTopic;

    /// The ordering key: its shard is the one that this command's events join.
    fn key(&self) -> Uuid;

    /// Declares what `decide` looks at.
    fn reads(&self, reads: &mut Reads);

    /// Decides, by what `reads` declared.
    ///
    /// # Errors
    /// The refusal; whatever was emitted before it is undone.
    fn decide(&self, work: &mut Workspace<'_>) -> Result<Self::Output, Self::Refusal>;
}

/// What the commands of a batch look at.
#[derive(Debug, Default)]
pub struct Reads {
    pub(crate) streams: Vec<StreamRead>,
    pub(crate) lookups: Vec<(&'static str, String)>,
}

/// One stream that a command looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamRead {
    pub(crate) kind: &'static Kind,
    pub(crate) id: Uuid,
    pub(crate) fresh: bool,
}

impl Reads {
    /// A stream that is loaded before `decide`.
    pub fn stream<A: Stored>(&mut self, id: Uuid) {
        self.streams.push(StreamRead { kind: A::KIND, id, fresh: false });
    }

    /// A stream that is expected to be new. It is loaded only after a refusal or a collision; then `decide` runs again.
    pub fn fresh<A: Stored>(&mut self, id: Uuid) {
        self.streams.push(StreamRead { kind: A::KIND, id, fresh: true });
    }

    /// The owner of a key of a scope.
    pub fn lookup(&mut self, scope: &'static str, key: impl Into<String>) {
        self.lookups.push((scope, key.into()));
    }
}

/// Where a command came from; stored with each of its events. What is absent was the event's own cause.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// The same for all that one request causes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The event that caused the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Uuid>,
    /// W3C trace context of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The session that the command came by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Uuid>,
}

impl Context {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogPosition {
    /// The topic of the shard.
    pub topic: LogTopic,
    /// The shard.
    pub shard: u16,
    /// The position in the shard, from 1; 0 is before its first event.
    pub position: u64,
}

/// A command that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Executed<T> {
    /// What `decide` returned.
    pub output: T,
    /// The last event of the command; the shard's committed head when it made none.
    pub position: LogPosition,
    /// Whether it made events.
    pub changed: bool,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError<R> {
    /// `decide` refused it, by state that was checked to be current.
    #[error("refused")]
    Refused(R),
    /// Too many commands wait. Nothing was done.
    #[error("too many commands wait for the log")]
    Busy,
    /// PostgreSQL did not answer in time. Whether the command was carried out is not known: try again with the same id.
    #[error("the log's database is not available")]
    Unavailable(#[source] Arc<sqlx::Error>),
    /// PostgreSQL refused this very command, and will again: a key that was claimed blindly, a text it cannot store.
    #[error("the log's database rejects the command")]
    Rejected(#[source] Arc<sqlx::Error>),
    /// A stored event that the command needs cannot be read.
    #[error(transparent)]
    Unreadable(Arc<crate::UnreadableEvent>),
    /// `decide` panicked. Nothing was done.
    #[error("the command's decision failed: {0}")]
    Defect(String),
    /// The store was closed. Nothing was done.
    #[error("the log is closed")]
    Closed,
}
