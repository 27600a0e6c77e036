//! What the roles of a process are made of.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use command_api::Service;
use event_store::{Committed, EventStore, Log};
use platform::applied::AppliedPositions;
use platform::bus::KafkaBus;
use platform::cache::{Answers, Marks, ShardOf};
use platform::config::{Config, Origin, PublicUrl};
use platform::leases::Leases;
use platform::lifecycle::Lifecycle;
use platform::redis::Redis;
use platform::registry;
use projectors::notifications;
use query_api::gateway::{self, CommandPort, Gateway, RemoteCommands};
use query_api::{Dependencies, Dependency, Documents, QueryState, Reads};
use relay::{Leadership, Others, Relay, RelayStatus};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::auth::Auth;
use super::engines::{Engines, EventBus, schema_base};
use super::in_process::InProcessCommands;
use super::notary;
use super::pools::Pools;
use super::roles::{Role, Roles};

/// What the leases of the shards are called that relays lead.
const RELAY: &str = "relay";

/// What roles are started with.
pub(super) struct Process<'a> {
    pub(super) config: &'a Config,
    pub(super) roles: &'a Roles,
    pub(super) pools: &'a Pools,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// What serves.
    pub(super) life: &'a Lifecycle,
    /// What runs behind the routes, and outlives them, so that what they took is carried out.
    pub(super) behind: &'a Lifecycle,
}

/// What the roles serve, and what has to be brought to its end.
pub(super) struct Parts {
    pub(super) router: Router,
    pub(super) dependencies: Vec<Dependency>,
    pub(super) gateway: Option<Gateway>,
    pub(super) remote: Option<Arc<RemoteCommands>>,
    pub(super) commands: Option<(Service, EventStore)>,
}

impl Parts {
    /// Carries out what was taken and not yet done.
    pub(super) async fn finish(&self) {
        if let Some(remote) = &self.remote {
            remote.drain().await;
        }
        if let Some((service, store)) = &self.commands {
            service.drain().await;
            store.close().await;
        }
    }
}

impl Process<'_> {
    /// Starts all roles; whoever listens before whoever tells.
    pub(super) async fn start(&self) -> anyhow::Result<Parts> {
        let engines = Engines::connect(self.config, self.roles).await?;
        let auth = Auth::open(self.config, &self.pools.state, self.stop()).await?;
        let commands =
            if self.roles.has(Role::CommandApi) { Some(self.commands(&auth, &engines).await?) } else { None };
        let log = match &commands {
            Some((_, store)) => store.log().clone(),
            None => Log::open_or_make(self.pools.log.clone(), event_store::Options::default().shards).await?,
        };
        let mut parts = Parts {
            router: Router::new(),
            dependencies: vec![Dependency::postgres(self.pools.state.clone())],
            gateway: None,
            remote: None,
            commands,
        };
        if let Some((service, _)) = &parts.commands {
            let service = service.clone();
            parts.router = parts.router.merge(command_api::router(service.clone()));
            parts.router = parts.router.merge(command_api::internal_router(service, self.life.drain_token()));
        }
        let applied = AppliedPositions::default();
        if let Some(pool) = &self.pools.queries {
            self.queries(&mut parts, pool, &auth, &engines, &applied, &log)?;
        }
        // What is applied to the primary the replica does not have yet.
        let applied = if self.pools.replica.is_some() { AppliedPositions::default() } else { applied };
        if self.roles.want_bus() {
            self.bus(&mut parts, &auth, &engines, applied, &log).await?;
        }
        if self.roles.has(Role::Relay) {
            let (signing, health) = notary::open(self.config, &log, &self.pools.state)?;
            parts.dependencies.push(health);
            if let Some(signing) = signing {
                self.essential("notary", signing.run(self.stop()));
            }
        }
        if let Some(pool) = &self.pools.notifications {
            self.notifications(pool, &auth, &engines)?;
        }
        parts.dependencies.extend(engines.redis.map(redis_dependency));
        Ok(parts)
    }

    fn stop(&self) -> CancellationToken {
        self.behind.drain_token()
    }

    /// The command side.
    async fn commands(&self, auth: &Auth, engines: &Engines) -> anyhow::Result<(Service, EventStore)> {
        let store = EventStore::open(self.pools.log.clone(), event_store::Options::default()).await?;
        let service = Service::new(command_api::Parts {
            store: store.clone(),
            pool: self.pools.state.clone(),
            authenticator: auth.authenticator.clone(),
            tickets: auth.tickets.clone(),
            limiter: Arc::clone(&engines.limiter),
            settings: command_api::Settings {
                refresh_ttl: self.config.refresh_ttl,
                refresh_grace: self.config.refresh_grace,
                push_anywhere: self.config.notifications.anywhere,
                ..command_api::Settings::default()
            },
        });
        // A private database is nobody else's to call.
        if self.config.database_url.is_some() {
            let url = self.advertised()?;
            self.life.spawn(registry::join(self.pools.state.clone(), url, self.life.drain_token()));
        }
        Ok((service, store))
    }

    /// Where others reach the command side of this process.
    fn advertised(&self) -> anyhow::Result<PublicUrl> {
        if let Some(url) = &self.config.advertise_url {
            return Ok(url.clone());
        }
        if self.address.ip().is_unspecified() {
            tracing::warn!(
                "listening on {}, other processes are told to call there: PARLANCE_ADVERTISE_URL should say where they reach this one",
                self.address
            );
        }
        let url = format!("http://{}", self.address).parse();
        url.map_err(|reason: String| anyhow::anyhow!(reason)).context("the listen address as a URL")
    }

    /// Queries, and the gateway.
    fn queries(
        &self,
        parts: &mut Parts,
        pool: &PgPool,
        auth: &Auth,
        engines: &Engines,
        applied: &AppliedPositions,
        log: &Log,
    ) -> anyhow::Result<()> {
        let port: Arc<dyn CommandPort> = if let Some((service, _)) = &parts.commands {
            Arc::new(InProcessCommands(service.clone()))
        } else {
            let members = registry::watch(self.pools.state.clone(), self.stop());
            let remote = Arc::new(RemoteCommands::new(members, auth.authenticator.keyring()));
            parts.remote = Some(Arc::clone(&remote));
            remote
        };
        let reads = Reads::with_replica(pool.clone(), self.pools.replica.clone());
        let gateway = Gateway::new(gateway::Dependencies {
            pool: pool.clone(),
            reads: reads.clone(),
            port: Arc::clone(&port),
            applied: applied.clone(),
            live: Arc::clone(&engines.live),
            authenticator: auth.authenticator.clone(),
            tickets: auth.tickets.clone(),
            origins: origins(self.config),
        });
        self.essential("checkpoints", query_api::follow_checkpoints(reads.clone(), applied.clone(), self.stop()));
        let shard_of: ShardOf = Arc::new({
            let log = log.clone();
            move |key| log.shard_of(key)
        });
        let queries = QueryState::new(Dependencies {
            reads,
            applied: applied.clone(),
            authenticator: auth.authenticator.clone(),
            shard_of: Arc::clone(&shard_of),
            commands: port,
            documents: Documents::of([command_api::openapi(), query_api::openapi()])?,
            answers: engines.redis.clone().map(|redis| Answers::new(redis, shard_of)),
        });
        let router = std::mem::take(&mut parts.router);
        parts.router = router.merge(query_api::router(queries)).merge(gateway.route());
        parts.gateway = Some(gateway);
        Ok(())
    }

    /// The relay, and the projectors.
    async fn bus(
        &self,
        parts: &mut Parts,
        auth: &Auth,
        engines: &Engines,
        applied: AppliedPositions,
        log: &Log,
    ) -> anyhow::Result<()> {
        // Followed before the heads are read, so that nothing falls between the two.
        let committed = parts.commands.as_ref().map(|(_, store)| store.committed());
        let events = EventBus::connect(self.config, log).await?;
        let mut status = None;
        if self.roles.has(Role::Relay) {
            status = Some(self.relay(auth, &events, committed, log).await?);
        }
        if let EventBus::Kafka(kafka) = &events {
            parts.dependencies.push(kafka_dependency(Arc::clone(kafka), status));
        }
        if let Some(pool) = &self.pools.projections {
            let projectors = projectors::Parts {
                pool: pool.clone(),
                bus: events.bus(),
                applied,
                live: Arc::clone(&engines.live),
                marks: engines.redis.clone().map(Marks::new),
                shards: log.shards(),
            };
            self.essential("projectors", projectors::run(projectors, self.stop()));
        }
        Ok(())
    }

    /// What is pushed to those who are away, and told to webhooks.
    fn notifications(&self, pool: &PgPool, auth: &Auth, engines: &Engines) -> anyhow::Result<()> {
        let mut settings = self.config.notifications.clone();
        let public_url = self.config.public_url.as_ref().map(|url| url.join(""));
        settings.contact = settings.contact.or(public_url.filter(|url| url.starts_with("https://")));
        let parts = notifications::Parts {
            pool: pool.clone(),
            live: Arc::clone(&engines.live),
            keyring: auth.authenticator.keyring().clone(),
            settings,
            schema_base: schema_base(self.config.public_url.as_ref()),
        };
        let deliver = notifications::deliver(parts, self.stop()).context("nothing can be called over TLS")?;
        self.essential("notifications", deliver);
        Ok(())
    }

    /// The relay, of all shards where the bus is this process's own, else of those that it gets a lease for.
    async fn relay(
        &self,
        auth: &Auth,
        events: &EventBus,
        committed: Option<Committed>,
        log: &Log,
    ) -> anyhow::Result<RelayStatus> {
        let options = if committed.is_some() { relay::Options::default() } else { relay::Options::alone() };
        let mut leadership = Leadership::All;
        // Handed back once nothing is published any more.
        let ended = CancellationToken::new();
        if let EventBus::Kafka(kafka) = events {
            kafka.ensure_topics().await?;
            let leases = Leases::new(self.pools.state.clone(), RELAY, relay::places(log));
            leadership = Leadership::Leases { held: leases.held(), in_use: leases.in_use() };
            self.essential("leases of the relay", leases.run(ended.clone()));
        }
        let mut relay = Relay::new(log.clone(), events.bus(), leadership.clone(), options);
        if let EventBus::Kafka(_) = events {
            relay = relay.replaying(self.pools.state.clone());
        }
        if let Some(committed) = committed {
            relay = relay.following(committed);
        }
        // Nobody else commits to a private database.
        if self.config.database_url.is_some() {
            let members = registry::watch(self.pools.state.clone(), self.stop());
            let own = self.roles.has(Role::CommandApi).then(|| self.advertised()).transpose()?;
            let own = own.map(|url| url.join(""));
            let others = Others::follow(members, own, auth.authenticator.keyring(), leadership, log);
            relay = relay.following_others(others);
        }
        let (status, stop) = (relay.status(), self.stop());
        self.essential("relay", async move {
            relay.run(stop).await;
            ended.cancel();
        });
        Ok(status)
    }

    /// Runs what the process cannot do without.
    fn essential(&self, name: &'static str, engine: impl Future<Output = ()> + Send + 'static) {
        self.behind.spawn_essential(name, async {
            engine.await;
            Ok::<(), Infallible>(())
        });
    }
}

/// Kafka, and what this process's relay makes of it.
fn kafka_dependency(bus: Arc<KafkaBus>, relay: Option<RelayStatus>) -> Dependency {
    Dependency::new("kafka", move || {
        let (bus, relay) = (Arc::clone(&bus), relay.clone());
        Box::pin(async move {
            bus.check().await?;
            relay.map_or_else(|| Ok("answers".to_owned()), |relay| relay.check())
        })
    })
}

fn redis_dependency(redis: Redis) -> Dependency {
    Dependency::new("redis", move || {
        let redis = redis.clone();
        Box::pin(async move { redis.check().await })
    })
}

/// Whose pages may open sockets, beside this address's own.
fn origins(config: &Config) -> Vec<Origin> {
    config.allowed_origins.iter().chain(config.public_url.as_ref().map(PublicUrl::origin)).cloned().collect()
}
