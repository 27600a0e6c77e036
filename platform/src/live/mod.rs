//! The live bus: hints from fan-out to the gateways that hold the devices.
//!
//! Lossy by design: a hint tells a gateway sooner what it would find out anyway from the committed heads.

#[cfg(test)]
mod contract;
mod in_process;
mod redis;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use schemas::Record;
use uuid::Uuid;

pub use self::redis::RedisLive;
pub use in_process::InProcessLive;

/// Conversations of more members are told on a channel of their own; in others every member is told on theirs.
pub const WIDE: usize = 100;

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
    /// The members of a conversation that is not [`WIDE`], whose own channels carry the hint; `None` for all else, and
    /// where the live bus asks for nobody's ([`LiveBus::addresses_members`]).
    pub audience: Option<Arc<[Uuid]>>,
}

/// A device's new connection, which replaces its older one wherever that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Whose device.
    pub user_id: Uuid,
    /// The device.
    pub device_id: Uuid,
    /// The new connection: a UUID version 7, so that the newer of two is known.
    pub connection_id: Uuid,
}

impl Connected {
    /// The device itself, whichever its connection.
    pub fn device(self) -> Device {
        Device { user_id: self.user_id, device_id: self.device_id }
    }
}

/// A device of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// Whose.
    pub user_id: Uuid,
    /// Which.
    pub device_id: Uuid,
}

/// The way from fan-out to the gateways.
#[async_trait]
pub trait LiveBus: Send + Sync + 'static {
    /// Tells the gateways that listen; hints of one conversation stay in order. What cannot be told in time is dropped.
    async fn publish(&self, hints: Vec<Hint>);

    /// Tells the other gateways that a device connected here; whether that is known now. Where it is not, it is to be
    /// said again soon ([`LiveBus::still_connected`]).
    async fn connected(&self, connected: Connected) -> bool;

    /// Tells that a connection is gone; a newer one of its device stands as it is.
    async fn disconnected(&self, gone: Connected);

    /// Those of these devices that are connected, to whichever gateway; `None` where that cannot be told just now. A
    /// device whose gateway was killed counts for a minute more.
    async fn connected_of(&self, devices: &[Device]) -> Option<HashSet<Device>>;

    /// Says which devices are connected here still, which is to be done three times a minute; of those that connected
    /// elsewhere since, though nobody heard of it, this process is told.
    async fn still_connected(&self, devices: &[Connected]);

    /// Has `sink` told from now on what this process listens to.
    fn attach(&self, sink: Arc<dyn LiveSink>);

    /// Listens to a channel, from this call on. Once the future is over, what is published there later comes, unless it
    /// is lost; that is within a bound, also where the bus is away. Each call wants one of [`LiveBus::ignore`], whatever
    /// became of the future.
    fn listen(&self, channel: Channel) -> BoxFuture<'static, ()>;

    /// Listens no longer.
    fn ignore(&self, channel: Channel);

    /// Whether hints come through at this moment, as far as is known. While they do not, the log has to be looked at
    /// more often.
    fn is_up(&self) -> bool;

    /// How often hints were lost, or may have been: where it moved, the log has to be looked at now.
    fn outages(&self) -> u64;

    /// Whether conversations that are not [`WIDE`] are told by their members' channels: then hints carry an audience.
    fn addresses_members(&self) -> bool;
}

/// A gateway's end of the live bus.
pub trait LiveSink: Send + Sync + 'static {
    /// Takes hints in; must not block. The same hint may come more than once.
    fn deliver(&self, hints: &[Hint]);

    /// A device connected to another gateway; must not block.
    fn connected(&self, connected: Connected);
}
