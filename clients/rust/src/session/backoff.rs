//! How long to wait before the next try: exponential, bounded, with full jitter. Pure.

use std::time::Duration;

/// A back-off between tries: the `n`-th waits for a random part of `base · 2ⁿ`, never more than `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait before the first retry.
    pub base: Duration,
    /// The longest wait before any.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(250), max: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The wait before retry number `attempt` (from 0), `random` being drawn from `0.0..1.0`.
    ///
    /// At least a tenth of the bound is always waited, so that a server that refuses at once is not asked in a spin.
    pub(crate) fn wait(&self, attempt: u32, random: f64) -> Duration {
        let bound = self.base.saturating_mul(1 << attempt.min(20)).min(self.max);
        bound.mul_f64(0.1 + 0.9 * random.clamp(0.0, 1.0))
    }

    /// The same with a random number of its own.
    pub(crate) fn draw(&self, attempt: u32) -> Duration {
        self.wait(attempt, rand::random())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_its_bound_and_jitters() {
        let backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(1) };
        assert_eq!(backoff.wait(0, 1.0), Duration::from_millis(100));
        assert_eq!(backoff.wait(2, 1.0), Duration::from_millis(400));
        assert_eq!(backoff.wait(2, 0.0), Duration::from_millis(40));
        assert_eq!(backoff.wait(9, 1.0), Duration::from_secs(1));
        assert_eq!(backoff.wait(u32::MAX, 1.0), Duration::from_secs(1));
    }
}
