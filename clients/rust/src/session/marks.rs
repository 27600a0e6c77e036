//! Watermarks that the application moves and the driver picks up: the latest of each conversation, never a queue.

use std::{collections::HashMap, sync::Mutex};

use tokio::sync::Notify;
use uuid::Uuid;

/// Watermarks on their way to the driver.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    moved: Mutex<Moved>,
    notify: Notify,
}

/// The latest watermark of each conversation.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    pub(crate) acks: HashMap<Uuid, u64>,
    pub(crate) reads: HashMap<Uuid, u64>,
}

impl Marks {
    pub(crate) fn ack(&self, conversation: Uuid, seq: u64) {
        raise(&mut self.lock().acks, conversation, seq);
        self.notify.notify_one();
    }

    pub(crate) fn read(&self, conversation: Uuid, seq: u64) {
        raise(&mut self.lock().reads, conversation, seq);
        self.notify.notify_one();
    }

    /// Takes what moved since the last time.
    pub(crate) fn take(&self) -> Moved {
        std::mem::take(&mut *self.lock())
    }

    /// Something moved.
    pub(crate) async fn moved(&self) {
        self.notify.notified().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Moved> {
        // Nothing that runs under the lock can panic half-way.
        self.moved.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

pub(crate) fn raise(marks: &mut HashMap<Uuid, u64>, conversation: Uuid, seq: u64) {
    let mark = marks.entry(conversation).or_insert(seq);
    *mark = seq.max(*mark);
}
