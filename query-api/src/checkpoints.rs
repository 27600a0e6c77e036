//! How far read models have been applied by another process, asked of the database while somebody waits to know.

use std::time::Duration;

use platform::applied::AppliedPositions;
use schemas::{Position, Topic};
use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// How often the checkpoints are read while somebody waits.
const PACE: Duration = Duration::from_millis(5);

/// Reads `read.checkpoints` into [`AppliedPositions`]: one reader, however many wait.
///
/// Where the projectors run in this process they post their positions themselves, mostly before anybody asks here.
pub(crate) struct CheckpointPoller {
    pool: PgPool,
    applied: AppliedPositions,
    /// Held by the one who reads for all.
    reading: Mutex<()>,
}

impl CheckpointPoller {
    pub(crate) fn new(pool: PgPool, applied: AppliedPositions) -> Self {
        Self { pool, applied, reading: Mutex::new(()) }
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
            match self.read().await {
                Ok(positions) => self.applied.post(positions),
                Err(error) => tracing::warn!(%error, "cannot read the checkpoints"),
            }
        }
    }

    /// The positions that all projections of a topic have applied.
    async fn read(&self) -> Result<Vec<Position>, sqlx::Error> {
        let rows: Vec<(i16, i16, i64)> =
            sqlx::query_as("SELECT topic, shard, min(position) FROM read.checkpoints GROUP BY topic, shard")
                .fetch_all(&self.pool)
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
}
