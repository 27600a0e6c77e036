//! The role of a process that projects: runners and fan-out over the shards that it holds.

use std::sync::Arc;
use std::time::Duration;

use platform::applied::AppliedPositions;
use platform::bus::Bus;
use platform::cache::Marks;
use platform::leases::Leases;
use platform::live::LiveBus;
use schemas::Topic;
use sqlx::PgPool;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::fan_out::FanOut;
use crate::projection::Consumer;
use crate::runner::{Runner, Shared};
use crate::{rebuild, registry};

/// What the leases of the shards are called.
const DUTY: &str = "projectors";
/// How long a batch that is being applied may keep a process from handing back what it holds.
const HANDOVER: Duration = Duration::from_secs(1);

/// What projecting needs.
pub struct Parts {
    /// The database of the read models, and of the leases.
    pub pool: PgPool,
    /// Where the records come from.
    pub bus: Arc<dyn Bus>,
    /// Told what was applied here, of the shards that are held here.
    pub applied: AppliedPositions,
    /// Where fan-out tells what happened.
    pub live: Arc<dyn LiveBus>,
    /// Where fan-out marks what moved, where answers are kept.
    pub marks: Option<Marks>,
    /// How many shards each topic has.
    pub shards: u16,
}

/// Projects until `shutdown`; what fails is tried again, and nothing is passed over.
///
/// Whoever runs this on the same database takes a share of the shards, all of them if it is alone, and takes over what
/// another held that stopped, died, or was not heard of for [`platform::leases::TTL`].
///
/// Fan-out goes with the shards where the live bus reaches other processes; where it does not, each process tells its
/// own gateway of every shard.
pub async fn run(parts: Parts, shutdown: CancellationToken) {
    let Parts { pool, bus, applied, live, marks, shards } = parts;
    let all = Topic::ALL.into_iter().flat_map(|topic| (0..shards).map(move |shard| (topic, shard)));
    let leases = Leases::new(pool.clone(), DUTY, all);
    let held = leases.held();
    let application = leases.application();
    let shared = Shared { pool: pool.clone(), bus, positions: applied, held, shards, application };

    let mut work = JoinSet::new();
    for topic in Topic::ALL {
        for consumer in Consumer::ALL {
            let projections: Vec<_> = registry::of(consumer, topic).collect();
            if !projections.is_empty() {
                work.spawn(Runner::new(shared.clone(), consumer, topic, projections).run(shutdown.clone()));
            }
        }
        let fan_out = FanOut::new(&shared, Arc::clone(&live), marks.clone(), topic);
        work.spawn(fan_out.run(shutdown.clone()));
    }
    work.spawn(sweep(pool, shutdown.clone()));
    // Sets, so that nothing goes on when this is given up.
    let (mut holding, leaving) = (JoinSet::new(), CancellationToken::new());
    holding.spawn(leases.run(leaving.clone()));

    // None of them ends before it is told to; where one does, so do all.
    if let Some(first) = work.join_next().await {
        finished(first);
    }
    if shutdown.is_cancelled() && timeout(HANDOVER, rest(&mut work)).await.is_err() {
        tracing::info!("a batch that is not applied yet is left to whoever follows");
    }
    work.shutdown().await;
    leaving.cancel();
    rest(&mut holding).await;
}

async fn rest(work: &mut JoinSet<()>) {
    while let Some(ended) = work.join_next().await {
        finished(ended);
    }
}

/// A panic goes on here.
fn finished(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

/// Drops what rebuilds left behind that were killed, and stays until `shutdown`.
async fn sweep(pool: PgPool, shutdown: CancellationToken) {
    if let Err(error) = rebuild::sweep(&pool).await {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "what a rebuild left behind stays for now");
    }
    shutdown.cancelled().await;
}

#[cfg(test)]
mod tests;
