//! The limiter of one process.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::num::NonZeroUsize;
use std::time::Instant;

use async_trait::async_trait;
use lru::LruCache;
use parking_lot::Mutex;

use super::{Bucket, Limiter, RetryAfter};
use crate::config::RateLimits;

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
        let Some(rate) = bucket.rate(&self.limits) else { return Ok(()) };
        let interval = rate.period / rate.amount.get();
        let hash = self.hasher.hash_one((bucket, key));
        #[expect(clippy::cast_possible_truncation, reason = "only its low bits choose a table")]
        let mut table = self.tables[hash as usize % TABLES].lock();
        // When the bucket is full again: each takes `interval` of it, `burst` fit into it.
        let full_at = table.get(&hash).copied().unwrap_or(now).max(now) + interval;
        let full = interval * rate.burst.get();
        match full_at.checked_duration_since(now + full) {
            Some(wait) if !wait.is_zero() => Err(RetryAfter(wait)),
            _ => {
                table.put(hash, full_at);
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Limiter for LocalLimiter {
    async fn check(&self, bucket: Bucket, key: &[u8]) -> Result<(), RetryAfter> {
        self.check_at(bucket, key, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};
    use std::time::Duration;

    use super::*;
    use crate::limits::contract;

    fn local(limits: RateLimits) -> Ready<((), [LocalLimiter; 1])> {
        ready(((), [LocalLimiter::new(limits)]))
    }

    contract::suite!(local);

    #[test]
    fn a_burst_passes_at_once_and_each_comes_back_in_its_time() {
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

    #[tokio::test]
    async fn a_flood_of_keys_stays_bounded() {
        let limiter = LocalLimiter::new(RateLimits::default());
        for key in 0..(TABLES * KEYS.get() * 2) {
            limiter.check(Bucket::Logins, &key.to_be_bytes()).await.unwrap();
        }
        assert!(limiter.tables.iter().all(|table| table.lock().len() <= KEYS.get()));
    }
}
