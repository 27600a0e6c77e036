//! The WebSocket gateway: streams every conversation to every device of its members until the device says that it has it.
//!
//! `protocol` is the wire, `session` one connection as a pure state machine, `socket` the loop that drives it over a
//! stream, `hub` this end of the live bus, `store` what stands in PostgreSQL, `work` what sessions want done, `port` the
//! command side, `remote` the same where it runs elsewhere, `traced` pushes as spans.

mod checks;
mod clock;
mod hub;
mod port;
mod protocol;
mod remote;
mod session;
mod socket;
mod store;
#[cfg(test)]
mod tests;
mod traced;
mod upgrade;
mod work;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use metrics::Counter;
use platform::applied::AppliedPositions;
use platform::auth::{Authenticator, Tickets};
use platform::config::Origin;
use platform::live::LiveBus;
use schemas::ws::close;
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::checkpoints::CheckpointPoller;
use crate::reads::Reads;
use clock::Clock;
use hub::Hub;
pub use port::CommandPort;
pub use remote::RemoteCommands;
use store::{Cursors, Store};

/// How often the number of connections is told.
const GAUGE_PACE: Duration = Duration::from_secs(5);

/// What the gateway needs from the process it runs in.
pub struct Dependencies {
    /// The database of shared state.
    pub pool: PgPool,
    /// Where the read models are read.
    pub reads: Reads,
    /// The command side.
    pub port: Arc<dyn CommandPort>,
    /// How far the read models have got.
    pub applied: AppliedPositions,
    /// Where hints come from.
    pub live: Arc<dyn LiveBus>,
    /// Verifies access tokens, and knows what was revoked.
    pub authenticator: Authenticator,
    /// Takes tickets.
    pub tickets: Tickets,
    /// Whose pages may open sockets, beside the server's own.
    pub origins: Vec<Origin>,
}

/// The gateway; cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    port: Arc<dyn CommandPort>,
    checkpoints: CheckpointPoller,
    authenticator: Authenticator,
    tickets: Tickets,
    origins: Vec<Origin>,
    store: Store,
    cursors: Cursors,
    hub: Arc<Hub>,
    live: Arc<dyn LiveBus>,
    clock: Clock,
    figures: Figures,
    /// Told where others do not know of a connection yet.
    unknown: Notify,
    /// Cancelled once the server drains.
    stop: CancellationToken,
    /// Cancelled once nothing is left to be kept.
    end: CancellationToken,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("connections", &self.shared.hub.len()).finish_non_exhaustive()
    }
}

/// Figures that are counted often.
struct Figures {
    deliveries: Counter,
    redeliveries: Counter,
}

impl Figures {
    fn new() -> Self {
        metrics::describe_counter!("parlance_gateway_deliveries_total", "Events sent to devices for the first time.");
        metrics::describe_counter!("parlance_gateway_redeliveries_total", "Events sent again, for want of an ack.");
        metrics::describe_gauge!("parlance_gateway_connections", "Open WebSocket connections.");
        metrics::describe_histogram!(
            "parlance_gateway_fan_out_seconds",
            metrics::Unit::Seconds,
            "Time to hand a batch of hints to the sessions concerned."
        );
        Self {
            deliveries: metrics::counter!("parlance_gateway_deliveries_total"),
            redeliveries: metrics::counter!("parlance_gateway_redeliveries_total"),
        }
    }
}

impl Gateway {
    /// A gateway that listens to the live bus from now on.
    pub fn new(dependencies: Dependencies) -> Self {
        let Dependencies { pool, reads, port, applied, live, authenticator, tickets, origins } = dependencies;
        let shared = Arc::new(Shared {
            port,
            checkpoints: CheckpointPoller::new(reads.clone(), applied),
            authenticator,
            tickets,
            origins,
            store: Store::new(reads, pool.clone()),
            cursors: Cursors::new(pool),
            hub: Arc::new(Hub::new(&live)),
            live: live.clone(),
            clock: Clock::new(),
            figures: Figures::new(),
            unknown: Notify::new(),
            stop: CancellationToken::new(),
            end: CancellationToken::new(),
        });
        live.attach(shared.hub.clone());
        tokio::spawn(shared.cursors.clone().run(shared.end.clone()));
        tokio::spawn(checks::run(shared.clone(), shared.stop.clone()));
        tokio::spawn(checks::follow_revocations(shared.clone(), shared.end.clone()));
        tokio::spawn(gauge(shared.clone()));
        Self { shared }
    }

    /// `GET /v1/ws`
    pub fn route(&self) -> Router {
        Router::new().route("/v1/ws", get(upgrade::upgrade)).with_state(self.shared.clone())
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.hub.len()
    }

    /// Takes no new connections, closes those that are open, and keeps what their devices acked; all within `bound`.
    pub async fn drain(&self, bound: Duration) {
        self.shared.stop.cancel();
        let drained = async {
            self.shared.hub.close_all(close::DRAINING, "the server drains; reconnect with jitter");
            self.shared.hub.emptied().await;
        };
        if tokio::time::timeout(bound, drained).await.is_err() {
            tracing::warn!(connections = self.connections(), "connections are still open after {bound:?}");
        }
        self.shared.end.cancel();
        if let Err(error) = self.shared.cursors.write().await {
            tracing::warn!(%error, "cannot keep the devices' cursors: {error}");
        }
    }
}

async fn gauge(shared: Arc<Shared>) {
    let gauge = metrics::gauge!("parlance_gateway_connections");
    let mut ticks = tokio::time::interval(GAUGE_PACE);
    loop {
        tokio::select! {
            () = shared.end.cancelled() => return,
            _ = ticks.tick() => gauge.set(u32::try_from(shared.hub.len()).unwrap_or(u32::MAX)),
        }
    }
}
