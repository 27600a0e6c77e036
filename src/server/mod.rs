//! The server: the roles that a process was given, on the engines that it was told of or supplies by itself.

mod auth;
mod engines;
mod in_process;
mod missing;
mod notary;
mod pools;
mod process;
mod roles;

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use platform::config::Config;
use platform::lifecycle::Lifecycle;
use platform::telemetry::Metrics;
use platform::traces::{Service, Traces};
use query_api::Operations;
use tokio::net::TcpListener;
use tokio::time::timeout;

pub(crate) use self::engines::schema_base;
pub(crate) use self::missing::Missing;
use self::pools::Pools;
use self::process::Process;
pub(crate) use self::roles::Roles;
use crate::database::Database;

/// How long each step of the end may take: sockets, requests, what they left to do. With PostgreSQL's own end, which
/// comes after them, all is over in under 10 s.
const STEP: Duration = Duration::from_millis(1_500);

/// Serves these roles until it is told to end.
pub(crate) async fn run(config: &Config, roles: &Roles) -> anyhow::Result<ExitCode> {
    platform::telemetry::init_logging(&config.log, config.log_format)?;
    let metrics = Metrics::install()?;
    let traces = traces(config, roles)?;
    // Before anything is started: without the port there is nothing to start.
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!("cannot listen on {}: choose a free address by --listen (port 0 picks a free one)", config.listen)
    })?;
    let life = Lifecycle::new();
    let database = Database::own(config).await?;
    let served = serve(config, roles, &life, &database, metrics, listener).await;
    let left = async {
        if let Some(traces) = traces {
            traces.finish(STEP).await;
        }
    };
    tokio::join!(left, database.stop());
    served
}

/// The export of traces, where a receiver is named.
fn traces(config: &Config, roles: &Roles) -> anyhow::Result<Option<Traces>> {
    let Some(otlp) = &config.otlp else { return Ok(None) };
    let named = roles.to_string();
    let name = if roles.are_all() { "parlance" } else { &named };
    let service = Service { name, roles: &named, version: env!("CARGO_PKG_VERSION") };
    Ok(Some(Traces::install(otlp, service)?))
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

    let behind = Lifecycle::new();
    let mut parts = Process { config, roles, pools: &pools, address, life, behind: &behind }.start().await?;
    // Without one of its parts the process only seems to serve.
    tokio::spawn({
        let (life, stop) = (life.clone(), behind.drain_token());
        async move {
            stop.cancelled().await;
            life.drain();
        }
    });
    let operations = Operations::new(std::mem::take(&mut parts.dependencies), move || metrics.render());
    let router = std::mem::take(&mut parts.router).merge(query_api::operations_router(operations));
    let router = platform::http::behind(&config.trusted_proxies, platform::http::frame(router));
    life.spawn(platform::http::serve(listener, router, life.drain_token(), STEP));
    let end = life.end()?;
    ready(address)?;

    end.await;
    if let Some(gateway) = &parts.gateway {
        gateway.drain(STEP).await;
    }
    let outcome = life.shutdown(STEP).await;
    if timeout(STEP, parts.finish()).await.is_err() {
        tracing::warn!("not all that was under way was carried out in time");
    }
    let engines = behind.shutdown(STEP).await;
    pools.close().await;
    Ok(if outcome.failed || engines.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Tells whoever started this process that it serves, by the one line of its standard output.
fn ready(address: SocketAddr) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready on http://{address}")?;
    out.flush()?;
    Ok(())
}
