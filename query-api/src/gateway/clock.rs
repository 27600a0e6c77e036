//! The time that sessions are told.

use time::OffsetDateTime;
use tokio::time::{Duration, Instant};

const LONGEST: Duration = Duration::from_hours(1);

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

    /// That moment, or an hour from now where it is later: `u64::MAX` is never.
    pub(crate) fn instant(self, at_ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(at_ms.saturating_sub(self.now_ms())).min(LONGEST)
    }

    /// When that time of the wall's clock comes.
    pub(crate) fn at(self, at: OffsetDateTime) -> u64 {
        let left = (at - OffsetDateTime::now_utc()).whole_milliseconds();
        self.now_ms().saturating_add(u64::try_from(left).unwrap_or_default())
    }
}
