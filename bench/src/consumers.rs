//! How far each consumer of the topics is behind the log, while people talk.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sqlx::PgConnection;
use tokio::time::sleep;

/// How often it is looked.
const PACE: Duration = Duration::from_millis(500);

/// What was seen.
#[derive(Debug, Clone)]
pub struct Followed {
    /// Events that came a second.
    pub events_per_s: f64,
    /// Each consumer, by name.
    pub consumers: BTreeMap<String, Behind>,
}

/// How far one was behind, in events.
#[derive(Debug, Clone, Copy, Default)]
pub struct Behind {
    /// At most.
    pub most: u64,
    /// On average over the second half of the time: more than in the first half, if it does not keep up.
    pub later: f64,
    /// On average over the first half.
    pub earlier: f64,
}

/// Watches all consumers for so long.
///
/// # Errors
/// A database that does not answer.
#[expect(clippy::cast_precision_loss, reason = "counts of a few minutes")]
pub async fn follow(connection: &mut PgConnection, window: Duration) -> anyhow::Result<Followed> {
    let (begun, first) = (Instant::now(), head(connection).await?);
    let mut samples: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    while begun.elapsed() < window {
        sleep(PACE).await;
        for (name, behind) in behind(connection).await? {
            samples.entry(name).or_default().push(behind);
        }
    }
    let events_per_s = (head(connection).await? - first) as f64 / begun.elapsed().as_secs_f64();
    let mean = |samples: &[u64]| samples.iter().sum::<u64>() as f64 / samples.len().max(1) as f64;
    let consumers = samples.into_iter().map(|(name, samples)| {
        let (earlier, later) = samples.split_at(samples.len() / 2);
        let most = samples.iter().copied().max().unwrap_or(0);
        (name, Behind { most, earlier: mean(earlier), later: mean(later) })
    });
    Ok(Followed { events_per_s, consumers: consumers.collect() })
}

async fn head(connection: &mut PgConnection) -> sqlx::Result<u64> {
    let sum: i64 = sqlx::query_scalar("SELECT sum(head)::bigint FROM log.shards").fetch_one(connection).await?;
    Ok(sum.cast_unsigned())
}

/// What each consumer's slowest projection has not applied yet.
async fn behind(connection: &mut PgConnection) -> sqlx::Result<Vec<(String, u64)>> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT consumer, sum(head - position)::bigint \
           FROM (SELECT consumer, topic, shard, min(position) AS position FROM read.checkpoints \
                  GROUP BY consumer, topic, shard) AS least \
           JOIN log.shards USING (topic, shard) GROUP BY consumer",
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(name, behind)| (name, behind.max(0).cast_unsigned())).collect())
}
