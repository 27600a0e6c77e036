//! How a store is opened.

use std::thread::available_parallelism;
use std::time::Duration;

use crate::upcast::Upcasters;

/// Bounds and sizes of a store; the defaults serve one process on a small machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Shards a topic of a database that has none yet. An existing one keeps what it was made with.
    pub shards: u16,
    /// Lanes, each a task with a connection of its own.
    pub lanes: usize,
    /// Commands that may wait for a lane, before more are turned away.
    pub queue: usize,
    /// Commands in one transaction.
    pub batch_commands: usize,
    /// JSON in one transaction, in bytes; the command that crosses it is the last of its batch.
    pub batch_bytes: usize,
    /// Streams a lane keeps of each aggregate.
    pub cached_streams: usize,
    /// JSON of the streams that a lane keeps of each aggregate, in bytes.
    pub cached_bytes: usize,
    /// Keys whose number of numbered events a lane keeps.
    pub cached_heads: usize,
    /// Batches that a slow reader of [`committed`](crate::EventStore::committed) may be behind before it misses some.
    pub committed_batches: usize,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// How long one statement may take, for the server; a little longer for us.
    pub statement_timeout: Duration,
    /// How long a lane tries to find out what became of a commit whose connection was lost.
    pub resolve_timeout: Duration,
    /// Old versions of events.
    pub upcasters: Upcasters,
}

impl Default for Options {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            shards: 16,
            lanes: if cores <= 2 { 1 } else { (cores / 2).min(4) },
            queue: 8192,
            batch_commands: 512,
            batch_bytes: 1024 * 1024,
            cached_streams: 8192,
            cached_bytes: 32 * 1024 * 1024,
            cached_heads: 32_768,
            committed_batches: 256,
            connect_timeout: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(4),
            resolve_timeout: Duration::from_secs(4),
            upcasters: Upcasters::default(),
        }
    }
}
