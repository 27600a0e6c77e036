//! `parlance up`: everything in one process.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use command_api::Service;
use event_store::EventStore;
use platform::applied::AppliedPositions;
use platform::auth::{AuthSettings, Authenticator, Keyring, Revocations, Tickets};
use platform::bus::{Bounds, Bus, InProcessBus};
use platform::config::{CommonFlags, Config, Origin, PublicUrl, ServeFlags};
use platform::lifecycle::Lifecycle;
use platform::limits::LocalLimiter;
use platform::live::{InProcessLive, LiveBus};
use platform::postgres::{PoolSettings, connect};
use platform::telemetry::Metrics;
use query_api::gateway::{self, Gateway};
use query_api::{Dependencies, Dependency, Documents, Operations, QueryState};
use relay::{LogBackfill, Relay};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::database::Database;
use crate::in_process::InProcessCommands;

/// How long each step of the end may take: sockets, requests, what they left to do. With PostgreSQL's own end, which
/// comes after them, all is over in under 10 s.
const STEP: Duration = Duration::from_millis(1_500);

/// Connections of each purpose: a slow query must not keep the projections from theirs.
mod connections {
    pub(super) const LOG: u32 = 4;
    pub(super) const STATE: u32 = 4;
    pub(super) const PROJECTIONS: u32 = 6;
    pub(super) const QUERIES: u32 = 12;
}

/// Serves until it is told to end.
pub(crate) async fn run(common: &CommonFlags, serve: &ServeFlags) -> anyhow::Result<ExitCode> {
    let config = Config::load(common, serve)?;
    platform::telemetry::init_logging(&config.log, config.log_format)?;
    let metrics = Metrics::install()?;
    // Before anything is started: without the port there is nothing to start.
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!("cannot listen on {}: choose a free address by --listen (port 0 picks a free one)", config.listen)
    })?;
    let address = listener.local_addr()?;
    let life = Lifecycle::new();
    let database = Database::own(&config).await?;
    let served = serve_all(&config, &life, &database, metrics, listener, address).await;
    database.stop().await;
    served
}

async fn serve_all(
    config: &Config,
    life: &Lifecycle,
    database: &Database,
    metrics: Metrics,
    listener: TcpListener,
    address: SocketAddr,
) -> anyhow::Result<ExitCode> {
    let pools = Pools::open(database).await?;
    migrations::run(&pools.log).await.context("the database cannot be brought up to date")?;
    metrics.spawn_upkeep(life);

    let store = EventStore::open(pools.log.clone(), event_store::Options::default()).await?;
    // Followed before the heads are read, so that nothing falls between the two.
    let committed = store.committed();
    let log = store.log().clone();
    let backfill = Arc::new(LogBackfill::new(log.clone()));
    let bus: Arc<dyn Bus> = Arc::new(InProcessBus::new(relay::heads(&log).await?, backfill, Bounds::default()));
    let hints: Arc<dyn LiveBus> = Arc::new(InProcessLive::default());
    let applied = AppliedPositions::default();

    // What stands behind the routes outlives them, so that what they took is carried out.
    let engines = Lifecycle::new();
    let stop = engines.drain_token();
    let auth = Auth::open(config, &pools.state, stop.clone()).await?;
    let service = Service::new(command_api::Parts {
        store: store.clone(),
        pool: pools.state.clone(),
        authenticator: auth.authenticator.clone(),
        tickets: auth.tickets.clone(),
        limiter: Arc::new(LocalLimiter::new(config.rate_limits)),
        settings: command_api::Settings {
            refresh_ttl: config.refresh_ttl,
            refresh_grace: config.refresh_grace,
            ..command_api::Settings::default()
        },
    });

    let gateway = Gateway::new(gateway::Dependencies {
        pool: pools.queries.clone(),
        port: Arc::new(InProcessCommands(service.clone())),
        applied: applied.clone(),
        live: hints.clone(),
        authenticator: auth.authenticator.clone(),
        tickets: auth.tickets,
        origins: origins(config),
    });

    let relay = Relay::new(log.clone(), bus.clone(), relay::Options::default()).following(committed);
    essential(&engines, "relay", relay.run(stop.clone()));
    let projectors = projectors::run(pools.projections.clone(), bus.clone(), applied.clone(), stop.clone());
    essential(&engines, "projectors", projectors);
    essential(&engines, "fan-out", projectors::fan_out::run(pools.projections.clone(), bus, hints, stop.clone()));
    // Without one of them the process only seems to serve.
    tokio::spawn({
        let life = life.clone();
        async move {
            stop.cancelled().await;
            life.drain();
        }
    });

    let queries = QueryState::new(Dependencies {
        pool: pools.queries.clone(),
        applied,
        authenticator: auth.authenticator,
        shard_of: Arc::new(move |key| log.shard_of(key)),
        documents: Documents::of([command_api::openapi(), query_api::openapi()])?,
    });
    let operations = Operations::new([Dependency::postgres(pools.state.clone())], move || metrics.render());
    let router = platform::http::frame(
        Router::new()
            .merge(command_api::router(service.clone()))
            .merge(query_api::router(queries))
            .merge(query_api::operations_router(operations))
            .merge(gateway.route()),
    );
    life.spawn(platform::http::serve(listener, router, life.drain_token(), STEP));
    ready(address)?;

    life.wait_for_end().await?;
    gateway.drain(STEP).await;
    let outcome = life.shutdown(STEP).await;
    let finished = async {
        service.drain().await;
        store.close().await;
    };
    if timeout(STEP, finished).await.is_err() {
        tracing::warn!("the log did not take all that was under way in time");
    }
    let engines = engines.shutdown(STEP).await;
    pools.close().await;
    Ok(if outcome.failed || engines.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs what the process cannot do without.
fn essential(engines: &Lifecycle, name: &'static str, engine: impl Future<Output = ()> + Send + 'static) {
    engines.spawn_essential(name, async {
        engine.await;
        Ok::<(), Infallible>(())
    });
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

/// Who may ask, and by what they prove it.
struct Auth {
    authenticator: Authenticator,
    tickets: Tickets,
}

impl Auth {
    async fn open(config: &Config, pool: &PgPool, stop: tokio_util::sync::CancellationToken) -> anyhow::Result<Self> {
        let keyring = Keyring::open(pool, config.master_key.as_ref()).await?;
        let revocations = Revocations::open(pool.clone(), config.access_ttl, stop).await?;
        let mut settings = AuthSettings { access_ttl: config.access_ttl, ..AuthSettings::default() };
        if let Some(url) = &config.public_url {
            url.origin().as_str().clone_into(&mut settings.issuer);
        }
        let authenticator = Authenticator::new(keyring, revocations, settings);
        let tickets = Tickets::new(pool.clone(), authenticator.clone(), config.ticket_ttl);
        Ok(Self { authenticator, tickets })
    }
}

/// A pool a purpose.
struct Pools {
    log: PgPool,
    state: PgPool,
    projections: PgPool,
    queries: PgPool,
}

impl Pools {
    async fn open(database: &Database) -> anyhow::Result<Self> {
        Ok(Self {
            log: database.pool("log", connections::LOG).await?,
            state: database.pool("state", connections::STATE).await?,
            projections: database.pool("projections", connections::PROJECTIONS).await?,
            queries: connect(
                &query_api::steady_plans(database.server().clone()),
                &PoolSettings::named("queries", connections::QUERIES),
            )
            .await?,
        })
    }

    async fn close(&self) {
        for pool in [&self.queries, &self.projections, &self.state, &self.log] {
            pool.close().await;
        }
    }
}
