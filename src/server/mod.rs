//! The server: the roles that a process was given, on the engines that it was told of or supplies by itself.

mod auth;
mod in_process;
mod missing;
mod pools;
mod roles;

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use command_api::Service;
use event_store::{EventStore, Log};
use platform::applied::AppliedPositions;
use platform::bus::{Bounds, Bus, InProcessBus};
use platform::config::{Config, Origin, PublicUrl};
use platform::lifecycle::Lifecycle;
use platform::limits::{Limiter, LocalLimiter};
use platform::live::{InProcessLive, LiveBus};
use platform::telemetry::Metrics;
use query_api::gateway::{self, CommandPort, Gateway};
use query_api::{Dependencies, Dependency, Documents, Operations, QueryState};
use relay::{Leadership, LogBackfill, Relay};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::auth::Auth;
use self::in_process::InProcessCommands;
pub(crate) use self::missing::Missing;
use self::pools::Pools;
use self::roles::Role;
pub(crate) use self::roles::Roles;
use crate::database::Database;

/// How long each step of the end may take: sockets, requests, what they left to do. With PostgreSQL's own end, which
/// comes after them, all is over in under 10 s.
const STEP: Duration = Duration::from_millis(1_500);

/// Serves these roles until it is told to end.
pub(crate) async fn run(config: &Config, roles: &Roles) -> anyhow::Result<ExitCode> {
    platform::telemetry::init_logging(&config.log, config.log_format)?;
    let metrics = Metrics::install()?;
    // Before anything is started: without the port there is nothing to start.
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!("cannot listen on {}: choose a free address by --listen (port 0 picks a free one)", config.listen)
    })?;
    let life = Lifecycle::new();
    let database = Database::own(config).await?;
    let served = serve(config, roles, &life, &database, metrics, listener).await;
    database.stop().await;
    served
}

async fn serve(
    config: &Config,
    roles: &Roles,
    life: &Lifecycle,
    database: &Database,
    metrics: Metrics,
    listener: TcpListener,
) -> anyhow::Result<ExitCode> {
    let address = listener.local_addr()?;
    let pools = Pools::open(database, roles).await?;
    migrations::run(&pools.state).await.context("the database cannot be brought up to date")?;
    metrics.spawn_upkeep(life);

    // What stands behind the routes outlives them, so that what they took is carried out.
    let behind = Lifecycle::new();
    let process = Process { config, roles, pools: &pools, behind: &behind, stop: behind.drain_token() };
    let parts = process.start().await?;
    // Without one of them the process only seems to serve.
    tokio::spawn({
        let (life, stop) = (life.clone(), process.stop.clone());
        async move {
            stop.cancelled().await;
            life.drain();
        }
    });
    let operations = Operations::new([Dependency::postgres(pools.state.clone())], move || metrics.render());
    let router = platform::http::frame(parts.router.merge(query_api::operations_router(operations)));
    life.spawn(platform::http::serve(listener, router, life.drain_token(), STEP));
    ready(address)?;

    life.wait_for_end().await?;
    if let Some(gateway) = parts.gateway {
        gateway.drain(STEP).await;
    }
    let outcome = life.shutdown(STEP).await;
    if let Some((service, store)) = parts.commands {
        let finished = async {
            service.drain().await;
            store.close().await;
        };
        if timeout(STEP, finished).await.is_err() {
            tracing::warn!("the log did not take all that was under way in time");
        }
    }
    let engines = behind.shutdown(STEP).await;
    pools.close().await;
    Ok(if outcome.failed || engines.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What the roles of a process are made of.
struct Process<'a> {
    config: &'a Config,
    roles: &'a Roles,
    pools: &'a Pools,
    /// What runs behind the routes.
    behind: &'a Lifecycle,
    stop: CancellationToken,
}

/// What the roles serve, and what has to be brought to its end.
struct Parts {
    router: Router,
    gateway: Option<Gateway>,
    commands: Option<(Service, EventStore)>,
}

impl Process<'_> {
    async fn start(&self) -> anyhow::Result<Parts> {
        let Self { config, roles, pools, .. } = *self;
        let auth = Auth::open(config, &pools.state, self.stop.clone()).await?;
        let (applied, live): (_, Arc<dyn LiveBus>) = (AppliedPositions::default(), Arc::new(InProcessLive::default()));
        let limiter: Arc<dyn Limiter> = Arc::new(LocalLimiter::new(config.rate_limits));

        let commands = if roles.has(Role::CommandApi) { Some(self.commands(&auth, limiter).await?) } else { None };
        let log = match &commands {
            Some((_, store)) => store.log().clone(),
            None => Log::open_or_make(pools.log.clone(), event_store::Options::default().shards).await?,
        };
        // The gateway listens before anything is told.
        let mut router = Router::new();
        let mut gateway = None;
        if let Some(pool) = &pools.queries {
            let port: Arc<dyn CommandPort> = match &commands {
                Some((service, _)) => Arc::new(InProcessCommands(service.clone())),
                None => anyhow::bail!("no way to the command side"),
            };
            let made = Gateway::new(gateway::Dependencies {
                pool: pool.clone(),
                port,
                applied: applied.clone(),
                live: Arc::clone(&live),
                authenticator: auth.authenticator.clone(),
                tickets: auth.tickets.clone(),
                origins: origins(config),
            });
            let followed = query_api::follow_checkpoints(pool.clone(), applied.clone(), self.stop.clone());
            self.essential("checkpoints", followed);
            let queries = QueryState::new(Dependencies {
                pool: pool.clone(),
                applied: applied.clone(),
                authenticator: auth.authenticator.clone(),
                shard_of: Arc::new({
                    let log = log.clone();
                    move |key| log.shard_of(key)
                }),
                documents: Documents::of([command_api::openapi(), query_api::openapi()])?,
            });
            router = router.merge(query_api::router(queries)).merge(made.route());
            gateway = Some(made);
        }
        if let Some((service, _)) = &commands {
            router = router.merge(command_api::router(service.clone()));
        }
        if roles.want_bus() {
            self.bus(&log, commands.as_ref().map(|(_, store)| store), applied, live).await?;
        }
        Ok(Parts { router, gateway, commands })
    }

    /// The command side.
    async fn commands(&self, auth: &Auth, limiter: Arc<dyn Limiter>) -> anyhow::Result<(Service, EventStore)> {
        let store = EventStore::open(self.pools.log.clone(), event_store::Options::default()).await?;
        let service = Service::new(command_api::Parts {
            store: store.clone(),
            pool: self.pools.state.clone(),
            authenticator: auth.authenticator.clone(),
            tickets: auth.tickets.clone(),
            limiter,
            settings: command_api::Settings {
                refresh_ttl: self.config.refresh_ttl,
                refresh_grace: self.config.refresh_grace,
                ..command_api::Settings::default()
            },
        });
        Ok((service, store))
    }

    /// The relay, and the projectors.
    async fn bus(
        &self,
        log: &Log,
        store: Option<&EventStore>,
        applied: AppliedPositions,
        live: Arc<dyn LiveBus>,
    ) -> anyhow::Result<()> {
        // Followed before the heads are read, so that nothing falls between the two.
        let committed = store.map(EventStore::committed);
        let backfill = Arc::new(LogBackfill::new(log.clone()));
        let bus: Arc<dyn Bus> = Arc::new(InProcessBus::new(relay::heads(log).await?, backfill, Bounds::default()));
        if self.roles.has(Role::Relay) {
            let mut relay = Relay::new(log.clone(), bus.clone(), Leadership::All, relay::Options::default());
            if let Some(committed) = committed {
                relay = relay.following(committed);
            }
            self.essential("relay", relay.run(self.stop.clone()));
        }
        if let Some(pool) = &self.pools.projections {
            let parts = projectors::Parts { pool: pool.clone(), bus, applied, live, shards: log.shards() };
            self.essential("projectors", projectors::run(parts, self.stop.clone()));
        }
        Ok(())
    }

    /// Runs what the process cannot do without.
    fn essential(&self, name: &'static str, engine: impl Future<Output = ()> + Send + 'static) {
        self.behind.spawn_essential(name, async {
            engine.await;
            Ok::<(), Infallible>(())
        });
    }
}

/// Whose pages may open sockets, beside this address's own.
fn origins(config: &Config) -> Vec<Origin> {
    config.allowed_origins.iter().chain(config.public_url.as_ref().map(PublicUrl::origin)).cloned().collect()
}

/// Tells whoever started this process that it serves, by the one line of its standard output.
fn ready(address: SocketAddr) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready on http://{address}")?;
    out.flush()?;
    Ok(())
}
