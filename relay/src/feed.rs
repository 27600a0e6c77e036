//! What is committed, straight from this process's store and from others: a short cut past the log, in which nothing has
//! to be found.

use std::sync::Arc;

use event_store::{Committed, CommittedBatch, StoredEvent};

use crate::others::Others;

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

/// The batches of this process's store, while there is one, and of others.
#[derive(Default)]
pub(crate) struct Feed {
    own: Option<Committed>,
    others: Option<Others>,
}

impl Feed {
    pub(crate) fn of(own: Option<Committed>, others: Option<Others>) -> Self {
        Self { own, others }
    }

    /// Whether anything may come.
    pub(crate) fn is_open(&self) -> bool {
        self.own.is_some() || self.others.as_ref().is_some_and(Others::tell)
    }

    /// All that waits, at least one batch, and no further one after so many events.
    pub(crate) async fn next(&mut self, most: usize) -> Heard {
        let mut heard = Heard::default();
        heard.add(self.first().await);
        while heard.events < most
            && let Some(batch) = self.try_next()
        {
            heard.add(batch);
        }
        heard
    }

    async fn first(&mut self) -> CommittedBatch {
        loop {
            let Self { own, others } = self;
            tokio::select! {
                batch = next_of(own) => match batch {
                    Some(batch) => return batch,
                    // The store is closed.
                    None => self.own = None,
                },
                Some(batch) = next_of_others(others) => return batch,
            }
        }
    }

    fn try_next(&mut self) -> Option<CommittedBatch> {
        let own = self.own.as_mut().and_then(Committed::try_next);
        own.or_else(|| self.others.as_mut()?.try_next())
    }
}

async fn next_of(own: &mut Option<Committed>) -> Option<CommittedBatch> {
    match own {
        Some(own) => own.next().await,
        None => std::future::pending().await,
    }
}

async fn next_of_others(others: &mut Option<Others>) -> Option<CommittedBatch> {
    match others {
        Some(others) => others.next().await,
        None => std::future::pending().await,
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
