//! How far read models have been applied by another process, asked of the database while somebody waits to know.

use std::time::Duration;

use platform::applied::AppliedPositions;
use schemas::{Position, Topic};
use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::reads::{Reads, Watch};

/// How often the checkpoints are read while somebody waits.
const PACE: Duration = Duration::from_millis(5);

/// How often they are read while nobody does: `Position` of an answer is behind by so much at most.
const IDLE_PACE: Duration = Duration::from_millis(250);

/// Reads the checkpoints now and then, until `stop`: what other processes applied stands in the answers of this one; and
/// sees to it that a replica is read while it is there and keeps up.
pub async fn follow_checkpoints(reads: Reads, applied: AppliedPositions, stop: CancellationToken) {
    let mut ticks = interval(IDLE_PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut replica = Watch::new(reads.clone());
    let mut away = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match reads.post(&applied).await {
            Ok(()) => away = false,
            Err(reason) if !away => {
                tracing::warn!(reason, "how far the read models have got is not known: {reason}");
                away = true;
            }
            Err(_) => {}
        }
        replica.look(&applied).await;
    }
}

/// The positions that all projections of a topic have applied.
pub(crate) async fn read(pool: &PgPool) -> Result<Vec<Position>, sqlx::Error> {
    let rows: Vec<(i16, i16, i64)> = sqlx::query_as(
        "SELECT topic, shard, min(position) FROM read.checkpoints WHERE consumer = 'read_models' GROUP BY topic, shard",
    )
    .fetch_all(pool)
    .await?;
    let place = |(topic, shard, position): (i16, i16, i64)| {
        Some(Position {
            topic: Topic::from_code(topic)?,
            shard: shard.try_into().ok()?,
            position: position.try_into().ok()?,
        })
    };
    Ok(rows.into_iter().filter_map(place).collect())
}

/// Reads `read.checkpoints` into [`AppliedPositions`]: one reader, however many wait.
///
/// Where the projectors run in this process they post their positions themselves, mostly before anybody asks here.
pub(crate) struct CheckpointPoller {
    reads: Reads,
    applied: AppliedPositions,
    /// Held by the one who reads for all.
    reading: Mutex<()>,
}

impl CheckpointPoller {
    pub(crate) fn new(reads: Reads, applied: AppliedPositions) -> Self {
        Self { reads, applied, reading: Mutex::new(()) }
    }

    /// Waits until all of `places` are applied; `false` if they are not within `bound`.
    pub(crate) async fn reached(&self, places: &[Position], bound: Duration) -> bool {
        let end = Instant::now() + bound;
        if self.applied.reached(places, Duration::ZERO).await {
            return true;
        }
        tokio::select! {
            biased;
            reached = self.applied.reached(places, bound) => reached,
            () = self.poll(end) => self.applied.reached(places, Duration::ZERO).await,
        }
    }

    /// Reads until `end`, or stands by while another does.
    async fn poll(&self, end: Instant) {
        let _reading = self.reading.lock().await;
        while Instant::now() < end {
            // The pause comes first: projectors of this process mostly post within it.
            sleep(PACE).await;
            if let Err(reason) = self.reads.post(&self.applied).await {
                tracing::warn!(reason, "how far the read models have got is not known: {reason}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use testkit::Database;

    use super::*;

    #[tokio::test]
    async fn what_others_applied_is_known_though_nobody_waits() {
        let (database, applied) = (Database::new().await, AppliedPositions::default());
        let stop = CancellationToken::new();
        let following = tokio::spawn(follow_checkpoints(database.pool().clone().into(), applied.clone(), stop.clone()));
        sqlx::query(
            "INSERT INTO read.checkpoints (projection, topic, shard, position) VALUES ('a', 1, 3, 7), ('b', 1, 3, 5)",
        )
        .execute(database.pool())
        .await
        .unwrap();
        let place = |position| Position { topic: Topic::Conversations, shard: 3, position };
        assert!(applied.reached(&[place(5)], Duration::from_secs(10)).await);
        assert_eq!(applied.get(Topic::Conversations, 3), 5, "what all of them have applied");
        stop.cancel();
        following.await.unwrap();
    }
}
