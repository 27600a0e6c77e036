//! What came of a delivery, and when it is tried again.

use std::time::Duration;

use rand::RngExt;

/// The longest wait between two tries.
const LONGEST: Duration = Duration::from_hours(6);

/// What came of a try.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The receiver has it.
    Taken,
    /// The receiver is no more, and wants nothing.
    Gone,
    /// Something may change: it is tried again, not before `after` if the receiver says so.
    Again { after: Option<Duration>, error: String },
    /// The next try would fare no better.
    Refused(String),
    /// It is not to be sent any more, and why.
    Quiet(&'static str),
}

/// The wait after so many tries: twice as long each time, within bounds, and a quarter more or less, so that what failed
/// together does not come together again. A receiver that asks for more time gets it.
pub(super) fn wait(first: Duration, attempts: u32, after: Option<Duration>) -> Duration {
    let doubled = first.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1).min(31)));
    let jittered = doubled.min(LONGEST).mul_f64(rand::rng().random_range(0.75..1.25));
    let longer = jittered.max(after.unwrap_or_default().min(LONGEST));
    // PostgreSQL knows no nanoseconds.
    Duration::from_millis(u64::try_from(longer.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_bounds_and_heed_the_receiver() {
        let first = Duration::from_secs(5);
        for (attempts, expected) in [(0, 5), (1, 5), (2, 10), (3, 20), (10, 2560), (40, 6 * 3600)] {
            let wait = wait(first, attempts, None).as_secs_f64();
            let expected = f64::from(expected);
            assert!((0.75 * expected..1.25 * expected).contains(&wait), "{attempts}: {wait}");
        }
        assert_eq!(wait(first, 1, None).subsec_nanos() % 1_000_000, 0);
        let waits: Vec<_> = (0..20).map(|_| wait(first, 1, None)).collect();
        assert!(waits.iter().any(|wait| *wait != waits[0]));
        assert!(wait(first, 1, Some(Duration::from_mins(2))) >= Duration::from_mins(2));
        assert!(wait(first, 1, Some(Duration::MAX)) <= LONGEST.mul_f64(1.25));
    }
}
