//! What this process commits, straight from its store: a short cut past the log, in which nothing has to be found.

use std::sync::Arc;

use event_store::{Committed, CommittedBatch, StoredEvent};

/// Events of one transaction.
pub(crate) type Batch = Arc<[StoredEvent]>;

/// What came by itself.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) batches: Vec<Batch>,
    /// Batches that went by, for we were too slow.
    pub(crate) missed: u64,
    events: usize,
}

impl Heard {
    fn add(&mut self, batch: CommittedBatch) {
        match batch {
            CommittedBatch::Events(events) => {
                self.events += events.len();
                self.batches.push(events);
            }
            CommittedBatch::Missed(batches) => self.missed += batches,
        }
    }
}

/// The store's batches, while there is a store.
#[derive(Default)]
pub(crate) struct Feed(Option<Committed>);

impl Feed {
    pub(crate) fn of(committed: Option<Committed>) -> Self {
        Self(committed)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// All that waits, at least one batch, and no further one after so many events.
    pub(crate) async fn next(&mut self, most: usize) -> Heard {
        let mut heard = Heard::default();
        let Some(committed) = &mut self.0 else { return std::future::pending().await };
        match committed.next().await {
            Some(first) => heard.add(first),
            None => self.0 = None,
        }
        while let Some(committed) = &mut self.0
            && heard.events < most
            && let Some(batch) = committed.try_next()
        {
            heard.add(batch);
        }
        heard
    }
}

/// Batches with events of shards that are being worked on: they are handed on after that.
pub(crate) struct Aside {
    batches: Vec<Batch>,
    events: usize,
    most: usize,
}

impl Aside {
    /// At most so many events; when it would become more, all come from the log instead.
    pub(crate) fn new(most: usize) -> Self {
        Self { batches: Vec::new(), events: 0, most }
    }

    pub(crate) fn put(&mut self, batch: Batch) {
        self.events += batch.len();
        if self.events > self.most {
            self.take();
        } else {
            self.batches.push(batch);
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Batch> {
        self.events = 0;
        std::mem::take(&mut self.batches)
    }
}
