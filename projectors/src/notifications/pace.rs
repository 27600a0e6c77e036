//! How often is looked for what is to be sent: often while something comes or is soon due, seldom once nothing does.

use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

const OFTEN: Duration = Duration::from_millis(200);
const SELDOM: Duration = Duration::from_secs(2);
/// After that nothing comes any more: the read models have the last message, and what failed is tried again later.
const QUIET: Duration = Duration::from_secs(5);

/// Wakes whoever sends in the process that wrote something down; others find it when they look next.
static NEWS: Notify = Notify::const_new();

/// Tells those who send in this process that something is written down. It may not be committed yet: they look often now.
pub(super) fn wake() {
    NEWS.notify_waiters();
}

/// Heard from now on, whenever it is waited for.
pub(super) fn news() -> Notified<'static> {
    NEWS.notified()
}

/// See the module.
pub(super) struct Pace {
    quiet: Duration,
    last: Instant,
}

impl Pace {
    /// Where what is written down is due after `delay`.
    pub(super) fn new(delay: Duration) -> Self {
        Self { quiet: QUIET + delay, last: Instant::now() }
    }

    /// Something was found, or is about to be.
    pub(super) fn quicken(&mut self) {
        self.last = Instant::now();
    }

    /// How long nothing has to be looked for.
    pub(super) fn pause(&self) -> Duration {
        if self.last.elapsed() < self.quiet { OFTEN } else { SELDOM }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_seldom_once_nothing_came_for_longer_than_what_is_due_waits() {
        let mut pace = Pace::new(Duration::from_secs(2));
        assert_eq!(pace.pause(), OFTEN);
        pace.last -= Duration::from_secs(6);
        assert_eq!(pace.pause(), OFTEN);
        pace.last -= Duration::from_secs(1);
        assert_eq!(pace.pause(), SELDOM);
        pace.quicken();
        assert_eq!(pace.pause(), OFTEN);
    }

    #[tokio::test]
    async fn news_that_come_before_they_are_waited_for_are_heard() {
        let news = news();
        wake();
        tokio::time::timeout(Duration::from_secs(10), news).await.unwrap();
    }
}
