//! Rate limits: how often somebody may do something, with a burst.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// Messages of a user.
    Messages,
    /// Log-ins of a pair of login name and address.
    Logins,
}

/// A limit was reached; it may go on after this long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rate limit was reached")]
pub struct RetryAfter(pub Duration);

impl RetryAfter {
    /// Whole seconds, rounded up, as the header `Retry-After` has them.
    pub fn seconds(self) -> u64 {
        u64::try_from(self.0.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
    }
}

/// Counts what is limited.
pub trait Limiter: Send + Sync + 'static {
    /// Takes one from the bucket of `key`, or says when there will be one.
    fn check(&self, bucket: Bucket, key: &[u8]) -> Result<(), RetryAfter>;
}

/// How much is let through in the long run, and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The time that one takes in the long run.
    pub interval: Duration,
    /// How many go at once.
    pub burst: u32,
}

/// The limits; a bucket without one is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Messages of a user.
    pub messages: Option<Rate>,
    /// Log-ins of a pair of login name and address.
    pub logins: Option<Rate>,
}

impl RateLimits {
    /// No limits at all; for load tests.
    pub const OFF: Self = Self { messages: None, logins: None };

    fn rate(&self, bucket: Bucket) -> Option<Rate> {
        match bucket {
            Bucket::Messages => self.messages,
            Bucket::Logins => self.logins,
        }
    }
}

impl Default for RateLimits {
    /// 30 messages a second with a burst of 60; 10 log-ins a minute.
    fn default() -> Self {
        Self {
            messages: Some(Rate { interval: Duration::from_secs(1) / 30, burst: 60 }),
            logins: Some(Rate { interval: Duration::from_secs(6), burst: 10 }),
        }
    }
}

/// Text that is no set of limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `off`, or as in `messages=30/60,logins=10` (a second/burst, a minute), not {0:?}")]
pub struct RateLimitsError(String);

impl FromStr for RateLimits {
    type Err = RateLimitsError;

    /// What is not named keeps its default.
    fn from_str(text: &str) -> Result<Self, RateLimitsError> {
        if text.trim() == "off" {
            return Ok(Self::OFF);
        }
        let mut limits = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || RateLimitsError(part.to_owned());
            let number = |text: &str| text.trim().parse().ok().filter(|number| *number > 0_u32).ok_or_else(wrong);
            let (name, value) = part.split_once('=').ok_or_else(wrong)?;
            let (count, burst) = match value.split_once('/') {
                Some((count, burst)) => (number(count)?, number(burst)?),
                None => (number(value)?, number(value)?),
            };
            match name.trim() {
                "messages" => limits.messages = Some(Rate { interval: Duration::from_secs(1) / count, burst }),
                "logins" => limits.logins = Some(Rate { interval: Duration::from_mins(1) / count, burst }),
                _ => return Err(wrong()),
            }
        }
        Ok(limits)
    }
}

const TABLES: usize = 16;
/// Keys remembered a table; the one used longest ago is forgotten first, so that no flood of keys fills the memory.
const KEYS: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");

type Table = LruCache<u64, Instant>;

/// The limiter of one process: GCRA, which keeps one instant a key.
#[derive(Debug)]
pub struct LocalLimiter {
    limits: RateLimits,
    /// By a hash that no outsider can foresee, so that no one collides with another on purpose.
    hasher: RandomState,
    tables: Vec<Mutex<Table>>,
}

impl LocalLimiter {
    /// One that knows of nobody yet.
    pub fn new(limits: RateLimits) -> Self {
        Self {
            limits,
            hasher: RandomState::new(),
            tables: (0..TABLES).map(|_| Mutex::new(LruCache::new(KEYS))).collect(),
        }
    }

    fn check_at(&self, bucket: Bucket, key: &[u8], now: Instant) -> Result<(), RetryAfter> {
        let Some(Rate { interval, burst }) = self.limits.rate(bucket) else { return Ok(()) };
        let hash = self.hasher.hash_one((bucket, key));
        #[expect(clippy::cast_possible_truncation, reason = "only its low bits choose a table")]
        let mut table = self.tables[hash as usize % TABLES].lock();
        // When the bucket is full again: each takes `interval` of it, `burst` fit into it.
        let full_at = table.get(&hash).copied().unwrap_or(now).max(now) + interval;
        let full = interval * burst;
        match full_at.checked_duration_since(now + full) {
            Some(wait) if !wait.is_zero() => Err(RetryAfter(wait)),
            _ => {
                table.put(hash, full_at);
                Ok(())
            }
        }
    }
}

impl Limiter for LocalLimiter {
    fn check(&self, bucket: Bucket, key: &[u8]) -> Result<(), RetryAfter> {
        self.check_at(bucket, key, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate() {
        let limiter = LocalLimiter::new(RateLimits::default());
        let now = Instant::now();
        let check = |after_ms| limiter.check_at(Bucket::Messages, b"ann", now + Duration::from_millis(after_ms));
        for _ in 0..60 {
            check(0).unwrap();
        }
        assert_eq!(check(0).unwrap_err().seconds(), 1);
        check(34).unwrap();
        assert!(check(34).is_err());
        limiter.check_at(Bucket::Messages, b"ben", now).unwrap();
        for _ in 0..60 {
            check(60_000).unwrap();
        }
        assert!(check(60_000).is_err());
    }

    #[test]
    fn log_ins_wait_for_seconds() {
        let limiter = LocalLimiter::new(RateLimits::default());
        let now = Instant::now();
        for _ in 0..10 {
            limiter.check_at(Bucket::Logins, b"ann", now).unwrap();
        }
        let refused = limiter.check_at(Bucket::Logins, b"ann", now).unwrap_err();
        assert_eq!(refused.seconds(), 6);
    }

    #[test]
    fn a_flood_of_keys_stays_bounded() {
        let limiter = LocalLimiter::new(RateLimits::default());
        for key in 0..(TABLES * KEYS.get() * 2) {
            limiter.check(Bucket::Logins, &key.to_be_bytes()).unwrap();
        }
        assert!(limiter.tables.iter().all(|table| table.lock().len() <= KEYS.get()));
    }

    #[test]
    fn limits_are_read_from_text() {
        let read = |text: &str| text.parse::<RateLimits>();
        assert_eq!(read("messages=30/60,logins=10").unwrap(), RateLimits::default());
        assert_eq!(read("").unwrap(), RateLimits::default());
        assert_eq!(read("off").unwrap(), RateLimits::OFF);
        let more = read("messages=500/1000").unwrap();
        assert_eq!(more.messages, Some(Rate { interval: Duration::from_millis(2), burst: 1000 }));
        assert_eq!(more.logins, RateLimits::default().logins);
        for wrong in ["messages", "messages=x", "messages=0", "logins=-1", "bananas=3", "messages=1/2/3"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
