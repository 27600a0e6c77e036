//! The time that sessions are told.

use time::OffsetDateTime;
use tokio::time::{Duration, Instant};

/// Milliseconds since the gateway began; cheap to copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    begun: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now() }
    }

    /// Now.
    pub(crate) fn now_ms(self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// That moment.
    pub(crate) fn instant(self, at_ms: u64) -> Instant {
        self.begun + Duration::from_millis(at_ms)
    }

    /// When that time of the wall's clock comes.
    pub(crate) fn at(self, at: OffsetDateTime) -> u64 {
        let left = (at - OffsetDateTime::now_utc()).whole_milliseconds();
        self.now_ms().saturating_add(u64::try_from(left).unwrap_or_default())
    }
}
