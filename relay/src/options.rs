//! The relay's paces and bounds.

use std::time::Duration;

/// How the relay looks for what others wrote, and how much it does at a time.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The pause between two looks while others write.
    pub shortest_poll: Duration,
    /// The pause that it grows to while they do not.
    pub longest_poll: Duration,
    /// How long what is committed may take to come by itself, where anybody tells, before it is read from the log.
    pub grace: Duration,
    /// Events read from a shard at once.
    pub page: u32,
    /// Pages of one shard, before others that wait have their turn.
    pub turn: u32,
    /// Shards that are caught up with at the same time.
    pub at_once: usize,
    /// How often the bus is asked how its shards end, for topics may be emptied behind our back.
    pub check: Duration,
    /// The pause before a shard that stands still is looked at again.
    pub stall: Duration,
    /// How long the bus or the log may take to do one thing.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shortest_poll: Duration::from_millis(5),
            longest_poll: Duration::from_millis(100),
            grace: Duration::from_millis(5),
            page: 1000,
            turn: 4,
            at_once: 8,
            check: Duration::from_secs(10),
            stall: Duration::from_secs(5),
            patience: Duration::from_secs(15),
        }
    }
}

impl Options {
    /// For a process that commits nothing itself: what others do not tell comes by looking.
    #[must_use]
    pub fn alone() -> Self {
        Self { shortest_poll: Duration::from_millis(2), longest_poll: Duration::from_millis(25), ..Self::default() }
    }
}
