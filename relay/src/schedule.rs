//! When to look at the log next.

use std::error::Error;

use tokio::time::{Duration, Instant};

use crate::Options;

/// The longest pause between two attempts while something is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The shortest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// The pause after so many failures in a row.
pub(crate) fn back_off(failures: u32) -> Duration {
    (SHORTEST_PAUSE * 2_u32.saturating_pow(failures.min(10))).min(LONGEST_PAUSE)
}

pub(crate) struct Schedule {
    shortest: Duration,
    longest: Duration,
    pub(crate) next: Instant,
    pause: Duration,
    failures: u32,
}

impl Schedule {
    pub(crate) fn new(options: &Options) -> Self {
        let (shortest, longest) = (options.shortest_poll, options.longest_poll);
        Self { shortest, longest, next: Instant::now(), pause: longest, failures: 0 }
    }

    /// There is something to find; not before its time while the log is away.
    pub(crate) fn now(&mut self) {
        if self.failures == 0 {
            self.next = Instant::now();
        }
    }

    /// A look that went well, and whether it found what was not known.
    pub(crate) fn looked(&mut self, found: bool) {
        if self.failures > 0 {
            tracing::info!("the relay reads the log again");
            self.failures = 0;
        }
        self.pause = if found { self.shortest } else { (self.pause * 2).min(self.longest) };
        self.next = Instant::now() + self.pause;
    }

    /// One that did not.
    pub(crate) fn failed(&mut self, error: &(dyn Error + 'static)) {
        if self.failures == 0 {
            tracing::warn!(error, "the relay cannot read the log, and tries again");
        }
        self.next = Instant::now() + back_off(self.failures);
        self.failures = self.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn looks_are_frequent_while_they_find_something_and_rare_while_they_do_not() {
        let mut schedule = Schedule::new(&Options::alone());
        let pause = |schedule: &Schedule| (schedule.next - Instant::now()).as_millis();
        schedule.looked(true);
        assert_eq!(pause(&schedule), 2);
        let pauses = [(); 5].map(|()| {
            schedule.looked(false);
            pause(&schedule)
        });
        assert_eq!(pauses, [4, 8, 16, 25, 25]);
        schedule.now();
        assert_eq!(pause(&schedule), 0);
        let pauses = [(); 7].map(|()| {
            schedule.failed(&std::fmt::Error);
            schedule.now();
            pause(&schedule)
        });
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
        schedule.looked(true);
        assert_eq!(pause(&schedule), 2);
    }
}
