//! What the live bus may have lost is found out from the log: the bus is a hint, never the truth.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use schemas::rest::Problem;
use schemas::{Position, Topic};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Shared;

/// How often the committed heads are compared with what was told.
const HEADS: Duration = Duration::from_secs(10);
/// What was committed just now may be on its way.
const GRACE: Duration = Duration::from_secs(1);
/// Every so many times memberships are compared too.
const STAYS: u32 = 3;
/// Conversations, or users, that are asked for at once.
const AT_ONCE: usize = 1_000;

/// Compares, until `stop`.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = interval(HEADS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = Known::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            checked = known.check(&shared) => if let Err(problem) = checked {
                tracing::warn!(detail = problem.detail, "cannot compare with the log: {}", problem.detail);
            }
        }
    }
}

/// How far the log had got when it was last looked at.
#[derive(Default)]
struct Known {
    heads: HashMap<(Topic, u16), u64>,
    stays: HashMap<(Topic, u16), u64>,
    round: u32,
}

fn by_shard(positions: Vec<Position>) -> HashMap<(Topic, u16), u64> {
    positions.into_iter().map(|place| ((place.topic, place.shard), place.position)).collect()
}

impl Known {
    async fn check(&mut self, shared: &Shared) -> Result<(), Problem> {
        self.round += 1;
        let positions = by_shard(shared.port.positions().await?);
        if positions != self.heads {
            check_heads(shared).await?;
            self.heads.clone_from(&positions);
        }
        if self.round.is_multiple_of(STAYS) && positions != self.stays {
            match check_stays(shared).await {
                Ok(()) => self.stays = positions,
                Err(error) => tracing::warn!(%error, "cannot compare memberships: {error}"),
            }
        }
        Ok(())
    }
}

async fn check_heads(shared: &Shared) -> Result<(), Problem> {
    let mut committed = HashMap::new();
    for chunk in shared.hub.told().chunks(AT_ONCE) {
        let ids: Vec<Uuid> = chunk.iter().map(|(id, _)| *id).collect();
        committed.extend(shared.port.heads(&ids).await?);
    }
    sleep(GRACE).await;
    for (conversation_id, head) in committed {
        shared.hub.head(conversation_id, head);
    }
    Ok(())
}

async fn check_stays(shared: &Shared) -> Result<(), sqlx::Error> {
    for chunk in shared.hub.users().chunks(AT_ONCE) {
        for (user_id, conversation_id, joined, head) in shared.store.stays_of_all(chunk).await? {
            shared.hub.stay(user_id, conversation_id, joined, head);
        }
    }
    Ok(())
}

/// Closes the sockets of sessions that are revoked, until `stop`.
pub(super) async fn follow_revocations(shared: Arc<Shared>, stop: CancellationToken) {
    let revocations = shared.authenticator.revocations().clone();
    let mut told = revocations.subscribe();
    loop {
        let revoked = tokio::select! {
            () = stop.cancelled() => return,
            revoked = told.recv() => revoked,
        };
        match revoked {
            Ok(session_id) => shared.hub.revoke(session_id),
            Err(RecvError::Lagged(_)) => shared.hub.revoke_where(|id| revocations.is_revoked(id)),
            Err(RecvError::Closed) => return,
        }
    }
}
