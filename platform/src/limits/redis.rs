//! The limiter that processes share: GCRA in Redis, a local one before and behind it.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use redis::{ErrorKind, Script, ServerErrorKind};
use sha2::{Digest, Sha256};

use super::{Bucket, Limiter, LocalLimiter, RetryAfter};
use crate::config::{Rate, RateLimits};
use crate::redis::{Redis, RedisError};

/// How long Redis may take; then the local limiter alone decides.
const BOUND: Duration = Duration::from_millis(50);

/// Keeps when the bucket is full again, by the server's clock, and only until then. Answers 0, or the microseconds until
/// there is room. Where the clock was set back, nobody waits for longer than for one place.
const TAKE: &str = "
    local time = redis.call('TIME')
    local now = time[1] * 1000000 + time[2]
    local interval, full = tonumber(ARGV[1]), tonumber(ARGV[2])
    local full_at = tonumber(redis.call('GET', KEYS[1]) or now)
    full_at = math.min(math.max(full_at, now), now + full) + interval
    if full_at > now + full then return math.ceil(full_at - now - full) end
    redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
    return 0";

/// What the server knows the script by.
static TAKE_HASH: LazyLock<String> = LazyLock::new(|| Script::new(TAKE).get_hash().to_owned());

/// Limits of all processes on one Redis; each alone while that is away.
#[derive(Debug)]
pub struct RedisLimiter {
    limits: RateLimits,
    local: LocalLimiter,
    redis: Redis,
}

impl RedisLimiter {
    /// One that shares what it counts with all on this Redis.
    pub fn new(limits: RateLimits, redis: Redis) -> Self {
        metrics::describe_counter!(
            "parlance_limits_alone_total",
            "Checks of limits that Redis had no part in, being away."
        );
        Self { limits, local: LocalLimiter::new(limits), redis }
    }

    /// Asks Redis, which is told no more of the key than its hash.
    async fn take(&self, bucket: Bucket, key: &[u8], rate: Rate) -> Result<i64, RedisError> {
        let name = match bucket {
            Bucket::Messages => "messages",
            Bucket::Logins => "logins",
        };
        let key = self.redis.key(&format!("limit:{{{name}:{}}}", hex::encode(&Sha256::digest(key)[..16])));
        let interval = rate.period / rate.amount.get();
        let asked = |command: &str, script: &str| {
            let mut asked = redis::cmd(command);
            let [interval, full] = [interval, interval * rate.burst.get()].map(micros);
            asked.arg(script).arg(1).arg(&key).arg(interval).arg(full);
            asked
        };
        match self.redis.ask(&key, &asked("EVALSHA", &TAKE_HASH), BOUND).await {
            Err(RedisError::Refused(error)) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.redis.ask(&key, &asked("EVAL", TAKE), BOUND).await
            }
            answer => answer,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Limiter for RedisLimiter {
    async fn check(&self, bucket: Bucket, key: &[u8]) -> Result<(), RetryAfter> {
        let Some(rate) = bucket.rate(&self.limits) else { return Ok(()) };
        // What one process refuses by itself all of them together would.
        self.local.check(bucket, key).await?;
        match self.take(bucket, key, rate).await {
            Ok(0) => Ok(()),
            Ok(wait) => Err(RetryAfter(Duration::from_micros(wait.unsigned_abs()))),
            Err(error) => {
                metrics::counter!("parlance_limits_alone_total").increment(1);
                tracing::debug!(%error, "the limits of this process decide alone");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use redis::Cmd;
    use testkit::redis::{Redis as Server, RedisCluster};
    use tokio::time::timeout;

    use super::*;
    use crate::limits::contract;

    const LONG: Duration = Duration::from_mins(1);

    async fn limiters(urls: String, limits: RateLimits) -> Vec<RedisLimiter> {
        let mut limiters = Vec::new();
        for _ in 0..3 {
            let redis = Redis::connect_within(&urls.clone().into(), LONG, "test:").await.unwrap();
            limiters.push(RedisLimiter::new(limits, redis));
        }
        limiters
    }

    mod on_one_server {
        use super::*;

        async fn shared(limits: RateLimits) -> (Server, Vec<RedisLimiter>) {
            let server = Server::start().unwrap();
            let limiters = limiters(server.url(), limits).await;
            (server, limiters)
        }

        contract::suite!(shared);
    }

    mod on_a_cluster {
        use super::*;

        async fn shared(limits: RateLimits) -> (RedisCluster, Vec<RedisLimiter>) {
            let cluster = RedisCluster::start().unwrap();
            let limiters = limiters(cluster.url(), limits).await;
            (cluster, limiters)
        }

        contract::suite!(shared);
    }

    #[tokio::test]
    async fn what_is_refused_here_never_gets_to_redis_and_no_name_stands_there() {
        let server = Server::start().unwrap();
        let limiter = &limiters(server.url(), RateLimits::default()).await[0];
        for _ in 0..200 {
            let _ = limiter.check(Bucket::Logins, b"ann").await;
        }
        let ask = async |command: &mut Cmd| limiter.redis.ask::<String>("a", command, LONG).await.unwrap();
        let stats = ask(redis::cmd("INFO").arg("commandstats")).await;
        let calls = stats.split_once("cmdstat_evalsha:calls=").unwrap().1.split_once(',').unwrap().0;
        assert!(calls.parse::<u32>().unwrap() <= 11, "{calls}");
        let key = limiter.redis.ask::<String>("a", &redis::cmd("RANDOMKEY"), LONG).await.unwrap();
        assert!(key.starts_with("parlance:test:limit:{logins:") && !key.contains("ann"), "{key}");
        let ttl: i64 = limiter.redis.ask("a", redis::cmd("PTTL").arg(&key), LONG).await.unwrap();
        assert!((1..=60_000).contains(&ttl), "{ttl}");
    }

    #[tokio::test]
    async fn alone_it_goes_on_by_itself_and_after_a_flush_it_begins_anew() {
        let server = Server::start().unwrap();
        let limiters = limiters(server.url(), RateLimits::default()).await;
        limiters[0].check(Bucket::Logins, b"ann").await.unwrap();
        limiters[0].redis.ask::<()>("a", &redis::cmd("FLUSHALL"), LONG).await.unwrap();
        limiters[0].redis.ask::<()>("a", redis::cmd("SCRIPT").arg("FLUSH"), LONG).await.unwrap();
        limiters[0].check(Bucket::Logins, b"ann").await.unwrap();
        server.pause().unwrap();
        // Far fewer than would be if each waited for it.
        let checked = async {
            for _ in 0..2_000 {
                let _ = limiters[1].check(Bucket::Messages, b"ben").await;
                let _ = limiters[1].check(Bucket::Logins, b"ben").await;
            }
        };
        timeout(LONG, checked).await.unwrap();
        assert!(limiters[1].check(Bucket::Logins, b"ben").await.is_err(), "its own limit holds");
        server.resume().unwrap();
    }
}
