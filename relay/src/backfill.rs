//! Old records, read from the log for those who are behind the bus.

use std::sync::Arc;

use async_trait::async_trait;
use event_store::Log;
use platform::bus::{Backfill, BusError};
use schemas::{Record, Topic};

use crate::stored::private;
use crate::translate::translate;

/// The log as the bus's backfill: translated as the relay does.
#[derive(Clone, Debug)]
pub struct LogBackfill {
    log: Log,
}

impl LogBackfill {
    /// Reads from `log`.
    pub fn new(log: Log) -> Self {
        Self { log }
    }
}

#[async_trait]
impl Backfill for LogBackfill {
    async fn read(&self, topic: Topic, shard: u16, after: u64, limit: usize) -> Result<Vec<Arc<Record>>, BusError> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let stored =
            self.log.read(private(topic), shard, after, limit).await.map_err(|error| BusError(error.into()))?;
        let mut records = Vec::with_capacity(stored.len());
        for event in &stored {
            match translate(event, self.log.upcasters()) {
                Ok(record) => records.push(Arc::new(record)),
                // What comes before it can be had.
                Err(_) if !records.is_empty() => break,
                Err(error) => return Err(BusError(error.into())),
            }
        }
        Ok(records)
    }
}
