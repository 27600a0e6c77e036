//! Rate limits: how often somebody may do something, with a burst.

#[cfg(test)]
mod contract;
mod local;
mod redis;

use std::time::Duration;

use async_trait::async_trait;

pub use self::redis::RedisLimiter;
use crate::config::{Rate, RateLimits};
pub use local::LocalLimiter;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// Messages of a user.
    Messages,
    /// Log-ins of a pair of login name and address.
    Logins,
}

impl Bucket {
    /// Its limit, if it has one.
    fn rate(self, limits: &RateLimits) -> Option<Rate> {
        match self {
            Self::Messages => limits.messages,
            Self::Logins => limits.logins,
        }
    }
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
#[async_trait]
pub trait Limiter: Send + Sync + 'static {
    /// Takes one from the bucket of `key`, or says when there will be one.
    async fn check(&self, bucket: Bucket, key: &[u8]) -> Result<(), RetryAfter>;
}
