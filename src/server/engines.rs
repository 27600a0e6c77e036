//! The engines of a process: those that settings name, else its own.

use std::sync::Arc;

use event_store::Log;
use platform::bus::{Bounds, Bus, InProcessBus, KafkaBus, KafkaSettings};
use platform::config::{Config, PublicUrl};
use platform::limits::{Limiter, LocalLimiter, RedisLimiter};
use platform::live::{InProcessLive, LiveBus, RedisLive};
use platform::redis::Redis;
use relay::LogBackfill;
use schemas::DEFAULT_BASE;

use super::roles::{Role, Roles};

/// Redis, and what stands on it or within the process.
pub(super) struct Engines {
    pub(super) redis: Option<Redis>,
    pub(super) live: Arc<dyn LiveBus>,
    pub(super) limiter: Arc<dyn Limiter>,
}

impl Engines {
    /// Waits for Redis, where a role of this process uses it.
    pub(super) async fn connect(config: &Config, roles: &Roles) -> anyhow::Result<Self> {
        let used = [Role::CommandApi, Role::QueryApi, Role::Projectors].into_iter().any(|role| roles.has(role));
        let redis = match config.redis_url.as_ref().filter(|_| used) {
            Some(url) => Some(Redis::connect(url).await?),
            None => None,
        };
        let live: Arc<dyn LiveBus> = match &redis {
            Some(redis) => Arc::new(RedisLive::start(redis.clone())),
            None => Arc::new(InProcessLive::default()),
        };
        let limiter: Arc<dyn Limiter> = match &redis {
            Some(redis) => Arc::new(RedisLimiter::new(config.rate_limits, redis.clone())),
            None => Arc::new(LocalLimiter::new(config.rate_limits)),
        };
        Ok(Self { redis, live, limiter })
    }
}

/// The bus that events go over.
#[derive(Clone)]
pub(super) enum EventBus {
    /// Shared with other processes.
    Kafka(Arc<KafkaBus>),
    /// This process's own.
    Own(Arc<InProcessBus>),
}

impl EventBus {
    /// Waits for Kafka, where it is named.
    pub(super) async fn connect(config: &Config, log: &Log) -> anyhow::Result<Self> {
        let Some(brokers) = &config.kafka_brokers else {
            let backfill = Arc::new(LogBackfill::new(log.clone()));
            let bus = InProcessBus::new(relay::heads(log).await?, backfill, Bounds::default());
            return Ok(Self::Own(Arc::new(bus)));
        };
        let settings = KafkaSettings {
            brokers: brokers.clone(),
            shards: log.shards(),
            base: schema_base(config.public_url.as_ref()),
            prefix: String::new(),
        };
        Ok(Self::Kafka(Arc::new(KafkaBus::connect(settings).await?)))
    }

    /// The same, whichever it is.
    pub(super) fn bus(&self) -> Arc<dyn Bus> {
        match self {
            Self::Kafka(bus) => Arc::clone(bus) as Arc<dyn Bus>,
            Self::Own(bus) => Arc::clone(bus) as Arc<dyn Bus>,
        }
    }
}

/// Where the schemas of events are found, without a slash at the end.
pub(crate) fn schema_base(public_url: Option<&PublicUrl>) -> String {
    let base = public_url.map_or_else(|| DEFAULT_BASE.to_owned(), |url| url.join(""));
    base.trim_end_matches('/').to_owned()
}
