//! How long it took until messages were delivered and read: histograms.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::course::Move;
use super::hours::hour;
use crate::database::smallint;
use crate::projection::ApplyError;

/// The upper bounds of all buckets but the last, in milliseconds: those of the view `delay_buckets`. They never change.
const BOUNDS_MS: [i64; 15] =
    [10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 3_600_000, 86_400_000];
const BUCKETS: usize = BOUNDS_MS.len() + 1;

/// Delays that one move of a watermark ended.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally([Count; BUCKETS]);

/// Delays of one bucket.
#[derive(Clone, Copy, Default)]
struct Count {
    passed: i64,
    sum_ms: i64,
}

impl Tally {
    /// A delay of so long; none is shorter than none, whatever the clocks say.
    pub(super) fn add(&mut self, delay_ms: i64) {
        let delay_ms = delay_ms.max(0);
        let Self(counts) = self;
        let count = &mut counts[BOUNDS_MS.partition_point(|bound| *bound < delay_ms)];
        count.passed += 1;
        count.sum_ms += delay_ms;
    }

    /// The buckets in which there is something.
    fn counts(&self) -> impl Iterator<Item = (usize, Count)> {
        self.0.into_iter().enumerate().filter(|(_, count)| count.passed > 0)
    }
}

/// The bars of a batch's histograms: what is counted by `P`, and by the mark's code, the hour and the bucket.
type Bars<P> = HashMap<(P, i16, i64, i16), Count>;

/// What a batch adds.
#[derive(Default)]
pub(super) struct Delays {
    by_conversation: Bars<Uuid>,
    by_shard: Bars<u16>,
}

impl Delays {
    pub(super) fn of(moves: &HashMap<Uuid, Vec<Move>>) -> Self {
        let mut delays = Self::default();
        for (conversation, step) in moves.iter().flat_map(|(id, moves)| moves.iter().map(move |step| (*id, step))) {
            let (mark, hour) = (step.mark.code(), hour(step.at_ms));
            for (bucket, count) in step.tally.counts() {
                let bucket = i16::try_from(bucket).unwrap_or(i16::MAX);
                delays.by_conversation.entry((conversation, mark, hour, bucket)).or_default().add(count);
                delays.by_shard.entry((step.shard, mark, hour, bucket)).or_default().add(count);
            }
        }
        delays
    }

    pub(super) async fn add(self, connection: &mut PgConnection) -> Result<(), ApplyError> {
        let (conversations, marks, hours, buckets, passed, sums) = columns(&self.by_conversation, |id| id);
        if conversations.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO analytics_delays AS t (conversation_id, mark, hour, bucket, passed, sum_ms) \
             SELECT conversation_id, mark, to_timestamp(hour), bucket, passed, sum_ms \
               FROM unnest($1::uuid[], $2::smallint[], $3::bigint[], $4::smallint[], $5::bigint[], $6::bigint[]) \
                 AS u(conversation_id, mark, hour, bucket, passed, sum_ms) \
             ON CONFLICT (conversation_id, mark, hour, bucket) DO UPDATE \
                SET passed = t.passed + excluded.passed, sum_ms = t.sum_ms + excluded.sum_ms",
        )
        .bind(conversations)
        .bind(marks)
        .bind(hours)
        .bind(buckets)
        .bind(passed)
        .bind(sums)
        .execute(&mut *connection)
        .await?;
        let (shards, marks, hours, buckets, passed, sums) = columns(&self.by_shard, smallint);
        sqlx::query(
            "INSERT INTO analytics_delays_in_all AS t (shard, mark, hour, bucket, passed, sum_ms) \
             SELECT shard, mark, to_timestamp(hour), bucket, passed, sum_ms \
               FROM unnest($1::smallint[], $2::smallint[], $3::bigint[], $4::smallint[], $5::bigint[], $6::bigint[]) \
                 AS u(shard, mark, hour, bucket, passed, sum_ms) \
             ON CONFLICT (mark, hour, bucket, shard) DO UPDATE \
                SET passed = t.passed + excluded.passed, sum_ms = t.sum_ms + excluded.sum_ms",
        )
        .bind(shards)
        .bind(marks)
        .bind(hours)
        .bind(buckets)
        .bind(passed)
        .bind(sums)
        .execute(connection)
        .await?;
        Ok(())
    }
}

impl Count {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.sum_ms += other.sum_ms;
    }
}

type Columns<C> = (Vec<C>, Vec<i16>, Vec<i64>, Vec<i16>, Vec<i64>, Vec<i64>);

fn columns<P: Copy, C>(bars: &Bars<P>, column: impl Fn(P) -> C) -> Columns<C> {
    let rows = bars.iter().map(|((place, mark, hour, bucket), count)| {
        (column(*place), *mark, *hour, *bucket, count.passed, count.sum_ms)
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use testkit::Database;

    use super::*;

    #[test]
    fn a_delay_counts_in_the_bucket_whose_bound_it_does_not_exceed() {
        let mut tally = Tally::default();
        for delay in [-5, 0, 10, 11, 86_400_000, 86_400_001, i64::from(u32::MAX)] {
            tally.add(delay);
        }
        let counts: Vec<_> = tally.counts().map(|(bucket, count)| (bucket, count.passed, count.sum_ms)).collect();
        assert_eq!(counts, [(0, 3, 10), (1, 1, 11), (14, 1, 86_400_000), (15, 2, 86_400_001 + 4_294_967_295)]);
    }

    #[tokio::test]
    async fn the_database_knows_the_same_buckets() {
        let database = Database::new().await;
        let rows: Vec<(i16, Option<i64>, Option<i64>)> =
            sqlx::query_as("SELECT bucket, over_ms, up_to_ms FROM read.delay_buckets ORDER BY bucket")
                .fetch_all(database.pool())
                .await
                .unwrap();
        let above = [None].into_iter().chain(BOUNDS_MS.map(Some));
        let up_to = BOUNDS_MS.map(Some).into_iter().chain([None]);
        let expected: Vec<_> =
            (0..).zip(above).zip(up_to).map(|((bucket, over), up_to)| (bucket, over, up_to)).collect();
        assert_eq!(rows, expected);
    }
}
