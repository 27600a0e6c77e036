//! What this process committed, handed on without reading it back.

use std::sync::Arc;

use tokio::sync::broadcast::{self, error::RecvError};

use crate::event::StoredEvent;

/// A follower of what this process commits.
///
/// Within a shard, positions come in order. Batches may be missed, and what other processes wrote need not come by
/// here at all: whoever needs every event compares positions and reads the log where there is a gap.
#[derive(Debug)]
pub struct Committed {
    pub(crate) receiver: broadcast::Receiver<Arc<[StoredEvent]>>,
}

/// What a follower is told next.
#[derive(Debug, Clone)]
pub enum CommittedBatch {
    /// Events of one transaction, or of several that another process wrote.
    Events(Arc<[StoredEvent]>),
    /// The follower was too slow, and so many batches went by.
    Missed(u64),
}

impl Committed {
    /// The next batch; `None` once the store is closed and all was taken.
    pub async fn next(&mut self) -> Option<CommittedBatch> {
        match self.receiver.recv().await {
            Ok(events) => Some(CommittedBatch::Events(events)),
            Err(RecvError::Lagged(missed)) => Some(CommittedBatch::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }

    /// The next batch, if one is there.
    pub fn try_next(&mut self) -> Option<CommittedBatch> {
        match self.receiver.try_recv() {
            Ok(events) => Some(CommittedBatch::Events(events)),
            Err(broadcast::error::TryRecvError::Lagged(missed)) => Some(CommittedBatch::Missed(missed)),
            Err(_) => None,
        }
    }
}
