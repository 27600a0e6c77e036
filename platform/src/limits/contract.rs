//! What every limiter must do: one suite of tests, held against each implementation.
//!
//! Each test is given the limiters of all processes that share the limits, and goes round them.

use std::num::NonZeroU32;
use std::time::Duration;

use testkit::eventually;

use super::{Bucket, Limiter, RetryAfter};
use crate::config::{Rate, RateLimits};

/// Makes a test of each promise; `$made` makes the limiters of each process, and what they stand on.
macro_rules! suite {
    ($made:path) => {
        $crate::limits::contract::suite!($made: a_burst_passes_then_the_rate, keys_are_apart, without_a_limit_all_passes);
    };
    ($made:path: $($case:ident),+) => {
        $(
            #[tokio::test]
            async fn $case() {
                let (_engine, limiters) = $made($crate::limits::contract::limits(stringify!($case))).await;
                $crate::limits::contract::$case(&limiters).await;
            }
        )+
    };
}
pub(crate) use suite;

const BURST: u32 = 5;

/// The limits that a test wants.
pub(crate) fn limits(case: &str) -> RateLimits {
    let number = |number| NonZeroU32::new(number).unwrap();
    match case {
        "without_a_limit_all_passes" => RateLimits::OFF,
        // Slow enough that none comes back while a burst is counted, fast enough to be waited for.
        "a_burst_passes_then_the_rate" => RateLimits {
            messages: Some(Rate { amount: number(1), period: Duration::from_secs(2), burst: number(BURST) }),
            ..RateLimits::default()
        },
        _ => RateLimits::default(),
    }
}

/// How often in a row it passes, and what is said then.
async fn passes(limiters: &[impl Limiter], bucket: Bucket, key: &[u8]) -> (u32, RetryAfter) {
    let mut count = 0;
    for limiter in limiters.iter().cycle().take(1_000) {
        match limiter.check(bucket, key).await {
            Ok(()) => count += 1,
            Err(retry) => return (count, retry),
        }
    }
    panic!("it passes for ever")
}

pub(crate) async fn a_burst_passes_then_the_rate(limiters: &[impl Limiter]) {
    let (count, retry) = passes(limiters, Bucket::Messages, b"ann").await;
    assert_eq!(count, BURST);
    assert!((1..=2).contains(&retry.seconds()), "{retry:?}");
    let last = &limiters[limiters.len() - 1];
    eventually("one more passes", Duration::from_secs(10), async || last.check(Bucket::Messages, b"ann").await.is_ok())
        .await;
    assert!(last.check(Bucket::Messages, b"ann").await.is_err(), "but one");
}

pub(crate) async fn keys_are_apart(limiters: &[impl Limiter]) {
    for key in ["ann at one place", "ben at one place"] {
        let (count, retry) = passes(limiters, Bucket::Logins, key.as_bytes()).await;
        assert_eq!(count, 10);
        assert!((5..=6).contains(&retry.seconds()), "{retry:?}");
    }
    limiters[0].check(Bucket::Messages, b"ann at one place").await.unwrap();
}

pub(crate) async fn without_a_limit_all_passes(limiters: &[impl Limiter]) {
    for limiter in limiters {
        for _ in 0..1_000 {
            limiter.check(Bucket::Messages, b"ann").await.unwrap();
        }
    }
}
