//! What the live bus may have lost is found out from the log: the bus is a hint, never the truth.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, join3};
use rand::RngExt;
use schemas::rest::Problem;
use schemas::{Position, Topic};
use time::OffsetDateTime;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Shared;
use super::hub::Heard;

/// How often the live bus is asked whether hints come through; one process differs from another, and from time to time.
const LOOK: Duration = Duration::from_secs(1);
/// How often the committed heads are compared with what was told, while they do.
const HEADS: Duration = Duration::from_secs(10);
/// How often memberships are, while they do.
const STAYS: Duration = Duration::from_secs(30);
/// And while they do not; watermarks too.
const STAYS_IN_A_HURRY: Duration = Duration::from_secs(4);
/// So long after hints came through again, not all may who tell them.
const RECOVERY: Duration = Duration::from_secs(5);
/// What was committed just now may be on its way.
const GRACE: Duration = Duration::from_secs(1);
/// How long before it showed hints may have been lost, clocks that differ included.
const MARGIN: Duration = Duration::from_secs(15);
/// How long the read models may take to have what is committed, before they are looked at all the same.
const CATCH_UP: Duration = Duration::from_millis(500);
/// How often is said which devices are here.
const DEVICES: Duration = Duration::from_secs(20);
/// Conversations, or users, that are asked for at once.
const AT_ONCE: usize = 1_000;

/// Compares, until `stop`.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        _ = join3(compare(&shared), look_at_fresh(&shared), say_who_is_here(&shared)) => {}
    }
}

async fn compare(shared: &Shared) {
    let mut known = Known::new(shared);
    loop {
        let pause = LOOK.mul_f64(rand::rng().random_range(0.8..1.4));
        sleep(pause).await;
        if let Err(problem) = known.look(shared).await {
            tracing::warn!(detail = problem.detail, "cannot compare with the log: {}", problem.detail);
        }
    }
}

/// Conversations that began to be heard while they went on: what was said before that.
async fn look_at_fresh(shared: &Shared) {
    loop {
        let (ids, heard): (Vec<Uuid>, Vec<Heard>) = shared.hub.fresh().await.into_iter().unzip();
        join_all(heard).await;
        for ids in ids.chunks(AT_ONCE) {
            match shared.port.heads(ids).await {
                Ok(heads) => heads.into_iter().for_each(|(id, head)| shared.hub.head(id, head)),
                // They are compared with all others before long.
                Err(problem) => tracing::debug!(detail = problem.detail, "cannot look at conversations"),
            }
        }
    }
}

/// Says which devices are connected here, where there are other gateways that they might connect to.
async fn say_who_is_here(shared: &Shared) {
    while shared.live.addresses_members() {
        let pause = DEVICES.mul_f64(rand::rng().random_range(0.8..1.0));
        if timeout(pause, shared.unknown.notified()).await.is_ok() {
            sleep(LOOK).await;
        }
        shared.live.still_connected(&shared.hub.devices()).await;
    }
}

type Heads = HashMap<(Topic, u16), u64>;

/// How far the log had got when it was last looked at.
struct Known {
    heads: Heads,
    stays: Heads,
    receipts: Heads,
    heads_at: Instant,
    stays_at: Instant,
    /// How often hints had been lost.
    outages: u64,
    /// Until when at least one hurries.
    hurry_until: Instant,
    /// Hints were lost, and since nothing may be lost any more it was not yet looked at what read models tell.
    owing: bool,
    /// All watermarks that moved before then were told.
    receipts_told: OffsetDateTime,
}

fn by_shard(positions: &[Position]) -> Heads {
    positions.iter().map(|place| ((place.topic, place.shard), place.position)).collect()
}

impl Known {
    fn new(shared: &Shared) -> Self {
        let now = Instant::now();
        Self {
            heads: Heads::new(),
            stays: Heads::new(),
            receipts: Heads::new(),
            heads_at: now,
            stays_at: now,
            outages: shared.live.outages(),
            hurry_until: now,
            owing: false,
            receipts_told: OffsetDateTime::now_utc(),
        }
    }

    async fn look(&mut self, shared: &Shared) -> Result<(), Problem> {
        let now = Instant::now();
        let outages = shared.live.outages();
        let lost = std::mem::replace(&mut self.outages, outages) != outages;
        if lost || !shared.live.is_up() {
            self.hurry_until = now + RECOVERY;
            self.owing = true;
        }
        let hurry = self.owing;
        if !hurry {
            self.receipts_told = OffsetDateTime::now_utc();
        }
        let heads_due = hurry || now >= self.heads_at + HEADS;
        let stays_due = lost || now >= self.stays_at + if hurry { STAYS_IN_A_HURRY } else { STAYS };
        if !heads_due && !stays_due {
            return Ok(());
        }
        let committed = shared.port.positions().await?;
        let positions = by_shard(&committed);
        if heads_due {
            self.heads_at = now;
            if positions != self.heads {
                check_heads(shared, if hurry { Duration::ZERO } else { GRACE }).await?;
                self.heads.clone_from(&positions);
            }
        }
        if stays_due {
            self.stays_at = now;
            let whole = shared.checkpoints.reached(&committed, CATCH_UP).await;
            match self.check_read_models(shared, &positions, whole, hurry).await {
                Ok(()) => self.owing &= !whole || now < self.hurry_until,
                Err(error) => tracing::warn!(%error, "cannot compare memberships: {error}"),
            }
        }
        Ok(())
    }

    /// Compares what is told by read models, which may not be `whole` at this moment: then it was not for the last time.
    async fn check_read_models(
        &mut self,
        shared: &Shared,
        positions: &Heads,
        whole: bool,
        hurry: bool,
    ) -> Result<(), sqlx::Error> {
        if *positions != self.stays {
            check_stays(shared).await?;
            if whole {
                self.stays.clone_from(positions);
            }
        }
        if hurry && *positions != self.receipts {
            let begun = OffsetDateTime::now_utc();
            check_receipts(shared, self.receipts_told - MARGIN).await?;
            if whole {
                self.receipts.clone_from(positions);
                self.receipts_told = begun;
            }
        }
        Ok(())
    }
}

async fn check_heads(shared: &Shared, grace: Duration) -> Result<(), Problem> {
    let mut committed = HashMap::new();
    for chunk in shared.hub.told().chunks(AT_ONCE) {
        let ids: Vec<Uuid> = chunk.iter().map(|(id, _)| *id).collect();
        committed.extend(shared.port.heads(&ids).await?);
    }
    sleep(grace).await;
    for (conversation_id, head) in committed {
        shared.hub.head(conversation_id, head);
    }
    Ok(())
}

async fn check_stays(shared: &Shared) -> Result<(), sqlx::Error> {
    for chunk in shared.hub.users().chunks(AT_ONCE) {
        for (user_id, stay) in shared.store.stays_of_all(chunk).await? {
            shared.hub.stay(user_id, stay.conversation_id, stay.joined, stay.head, stay.members);
        }
    }
    Ok(())
}

async fn check_receipts(shared: &Shared, since: OffsetDateTime) -> Result<(), sqlx::Error> {
    for chunk in shared.hub.told().chunks(AT_ONCE) {
        let ids: Vec<Uuid> = chunk.iter().map(|(id, _)| *id).collect();
        for conversation_id in shared.store.receipts_since(&ids, since).await? {
            shared.hub.receipts_missed(conversation_id);
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
