//! Up to where each shard was looked at, for good: what checkpoints, rebuilds and replays bring again is not told again.

use std::collections::HashMap;
use std::sync::Arc;

use schemas::{Record, Topic};
use sqlx::PgConnection;

use crate::database::{bigint, smallint};

/// Those of a batch that were not looked at before; from here on they were. Others who look at these shards wait until
/// the transaction ends.
pub(super) async fn pass(
    connection: &mut PgConnection,
    batch: &[Arc<Record>],
) -> Result<Vec<Arc<Record>>, sqlx::Error> {
    let mut reached: HashMap<(Topic, u16), u64> = HashMap::new();
    for record in batch {
        let position = reached.entry((record.topic, record.shard)).or_default();
        *position = record.position.max(*position);
    }
    let topics: Vec<i16> = reached.keys().map(|(topic, _)| topic.code()).collect();
    let shards: Vec<i16> = reached.keys().map(|(_, shard)| smallint(*shard)).collect();
    let mut rows = lock(connection, &topics, &shards).await?;
    if rows.len() < reached.len() {
        sqlx::query(
            "INSERT INTO state.notification_marks (topic, shard, position) \
             SELECT topic, shard, 0 FROM unnest($1::smallint[], $2::smallint[]) AS p(topic, shard) \
             ON CONFLICT DO NOTHING",
        )
        .bind(&topics)
        .bind(&shards)
        .execute(&mut *connection)
        .await?;
        rows = lock(connection, &topics, &shards).await?;
    }
    let marks: HashMap<(i16, i16), i64> =
        rows.into_iter().map(|(topic, shard, position)| ((topic, shard), position)).collect();
    let is_new = |record: &&Arc<Record>| {
        let mark = marks.get(&(record.topic.code(), smallint(record.shard)));
        mark.is_some_and(|mark| bigint(record.position) > *mark)
    };
    let news: Vec<Arc<Record>> = batch.iter().filter(is_new).cloned().collect();
    if !news.is_empty() {
        let positions: Vec<i64> = reached.values().copied().map(bigint).collect();
        sqlx::query(
            "UPDATE state.notification_marks m SET position = p.position \
               FROM unnest($1::smallint[], $2::smallint[], $3::bigint[]) AS p(topic, shard, position) \
              WHERE m.topic = p.topic AND m.shard = p.shard AND m.position < p.position",
        )
        .bind(topics)
        .bind(shards)
        .bind(positions)
        .execute(connection)
        .await?;
    }
    Ok(news)
}

async fn lock(
    connection: &mut PgConnection,
    topics: &[i16],
    shards: &[i16],
) -> Result<Vec<(i16, i16, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT m.topic, m.shard, m.position FROM state.notification_marks m \
           JOIN unnest($1::smallint[], $2::smallint[]) AS p(topic, shard) USING (topic, shard) \
          ORDER BY m.topic, m.shard FOR UPDATE OF m",
    )
    .bind(topics)
    .bind(shards)
    .fetch_all(connection)
    .await
}
