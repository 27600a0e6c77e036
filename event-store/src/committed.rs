//! What this process committed, handed on without reading it back; and the same on its way to another process.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
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

/// The longest line that is taken: a batch is far smaller.
const LONGEST_LINE: usize = 64 * 1024 * 1024;

/// What a follower is told next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

impl CommittedBatch {
    /// Appends the batch as a line of JSON, for [`CommittedLines`].
    pub fn write(&self, line: &mut Vec<u8>) {
        serde_json::to_writer(&mut *line, self).expect("text and numbers are JSON");
        line.push(b'\n');
    }
}

/// Cuts what another process tells it committed into batches.
#[derive(Debug, Default)]
pub struct CommittedLines {
    /// The beginning of a line whose end did not come yet.
    rest: Vec<u8>,
}

impl CommittedLines {
    /// The batches that are whole now, however the lines were cut on the way.
    ///
    /// # Errors
    /// A line that is none of [`CommittedBatch::write`], or far longer: what follows is worth nothing.
    pub fn feed(&mut self, piece: &[u8]) -> serde_json::Result<Vec<CommittedBatch>> {
        let end = piece.iter().rposition(|byte| *byte == b'\n').map(|end| self.rest.len() + end);
        self.rest.extend_from_slice(piece);
        let Some(end) = end else {
            let endless = self.rest.len() > LONGEST_LINE;
            return if endless { Err(serde::de::Error::custom("a line without an end")) } else { Ok(Vec::new()) };
        };
        let lines = self.rest[..end].split(|byte| *byte == b'\n');
        let batches = lines.map(serde_json::from_slice).collect();
        self.rest.drain(..=end);
        batches
    }
}

#[cfg(test)]
mod tests {
    use domain::kernel::LogTopic;
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::command::Context;

    fn batches() -> Vec<CommittedBatch> {
        let event = StoredEvent {
            topic: LogTopic::Conversations,
            shard: 3,
            position: 7,
            key: Uuid::from_u128(1),
            seq: Some(5),
            aggregate_type: 2,
            aggregate_id: Uuid::from_u128(2),
            sequence: 1,
            event_id: Uuid::from_u128(3),
            event_type: "sent".into(),
            event_version: 1,
            at: datetime!(2026-01-02 03:04:05.678 UTC),
            payload: "{\"content\":\"two\\nlines\"}".into(),
            metadata: Some(Arc::new(Context { correlation_id: Some("c".to_owned()), ..Context::default() })),
            hash: [9; 32],
        };
        let other = StoredEvent { seq: None, metadata: None, position: 8, topic: LogTopic::Users, ..event.clone() };
        vec![
            CommittedBatch::Events(vec![event.clone(), other].into()),
            CommittedBatch::Missed(4),
            CommittedBatch::Events(vec![event].into()),
        ]
    }

    #[test]
    fn batches_come_as_they_left_however_they_were_cut() {
        let mut stream = Vec::new();
        for batch in batches() {
            batch.write(&mut stream);
        }
        for size in [1, 2, 7, 100, stream.len()] {
            let mut lines = CommittedLines::default();
            let came: Vec<_> = stream.chunks(size).flat_map(|piece| lines.feed(piece).unwrap()).collect();
            assert_eq!(came, batches(), "in pieces of {size}");
            assert!(lines.rest.is_empty());
        }
    }

    #[test]
    fn other_words_are_refused() {
        assert!(CommittedLines::default().feed(b"{\"missed\":true}\n").is_err());
        assert!(CommittedLines::default().feed(b"\n").is_err());
        let mut endless = CommittedLines::default();
        let piece = vec![b'x'; 1 << 20];
        assert!((0..=LONGEST_LINE / piece.len()).any(|_| endless.feed(&piece).is_err()));
    }
}
