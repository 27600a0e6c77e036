//! Pushes to devices as spans, of events whose trace somebody looks at; of all others nothing is kept.

use std::sync::Arc;
use std::time::SystemTime;

use platform::auth::Caller;
use platform::traces::{KeyValue, Kind, Traced};
use schemas::Record;

/// An event on its way to devices, as far as its trace is concerned.
#[derive(Clone, Debug)]
pub(crate) struct Push {
    record: Traced,
    /// When the gateway heard of it.
    heard: SystemTime,
}

impl Push {
    /// Of a record that was told just now; `None` where nobody looks.
    pub(crate) fn of(record: &Record) -> Option<Arc<Self>> {
        Some(Arc::new(Self { record: Traced::of(record)?, heard: SystemTime::now() }))
    }

    /// It was written to a device's socket.
    pub(crate) fn done(&self, to: &Caller) {
        let ids = [("parlance.user_id", to.user_id), ("parlance.device_id", to.device_id)];
        let ids = ids.map(|(key, id)| KeyValue::new(key, id.to_string()));
        self.record.done(Kind::Producer, "deliver", "", self.heard, ids.into());
    }
}
