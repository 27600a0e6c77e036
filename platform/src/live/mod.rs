//! The live bus: hints from fan-out to the gateways that hold the devices.
//!
//! Lossy by design: a hint tells a gateway sooner what it would find out anyway from the committed heads.

mod in_process;

use std::sync::Arc;

use async_trait::async_trait;
use schemas::Record;
use uuid::Uuid;

pub use in_process::InProcessLive;

/// Whom a hint concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Every device of every member.
    Conversation(Uuid),
    /// Every device of one user.
    User(Uuid),
}

/// One hint.
#[derive(Clone, Debug)]
pub struct Hint {
    /// Whom it concerns.
    pub channel: Channel,
    /// What happened.
    pub record: Arc<Record>,
}

/// The way from fan-out to the gateways.
#[async_trait]
pub trait LiveBus: Send + Sync + 'static {
    /// Tells every gateway; hints of one conversation stay in order. What cannot be told in time is dropped.
    async fn publish(&self, hints: Vec<Hint>);

    /// Has `sink` told from now on.
    fn attach(&self, sink: Arc<dyn LiveSink>);
}

/// A gateway's end of the live bus.
pub trait LiveSink: Send + Sync + 'static {
    /// Takes hints in; must not block.
    fn deliver(&self, hints: &[Hint]);
}
