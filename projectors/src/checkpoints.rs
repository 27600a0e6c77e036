//! How far each projection has applied each shard, in the table that moves with its rows.

use schemas::Topic;
use sqlx::PgConnection;

use crate::database::{bigint, smallint};

/// A projection's move in one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) projection: &'static str,
    pub(crate) shard: u16,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// The checkpoints of one projection, by shard, for shards `0..shards`; those it never had begin at 0.
pub(crate) async fn load(
    connection: &mut PgConnection,
    projection: &str,
    topic: Topic,
    shards: u16,
) -> Result<Vec<u64>, sqlx::Error> {
    sqlx::query(
        "INSERT INTO read.checkpoints (projection, topic, shard, position) \
         SELECT $1, $2, shard, 0 FROM generate_series(0, $3 - 1) AS shard ON CONFLICT DO NOTHING",
    )
    .bind(projection)
    .bind(topic.code())
    .bind(i32::from(shards))
    .execute(&mut *connection)
    .await?;
    let positions: Vec<i64> = sqlx::query_scalar(
        "SELECT position FROM read.checkpoints WHERE projection = $1 AND topic = $2 AND shard < $3 ORDER BY shard",
    )
    .bind(projection)
    .bind(topic.code())
    .bind(i32::from(shards))
    .fetch_all(connection)
    .await?;
    Ok(positions.into_iter().map(i64::cast_unsigned).collect())
}

/// Moves them all; `false` if some do not stand where they are thought to: another one moved them.
pub(crate) async fn advance(connection: &mut PgConnection, topic: Topic, moves: &[Move]) -> Result<bool, sqlx::Error> {
    let projections: Vec<&str> = moves.iter().map(|step| step.projection).collect();
    let shards: Vec<i16> = moves.iter().map(|step| smallint(step.shard)).collect();
    let from: Vec<i64> = moves.iter().map(|step| bigint(step.from)).collect();
    let to: Vec<i64> = moves.iter().map(|step| bigint(step.to)).collect();
    let updated = sqlx::query(
        "UPDATE read.checkpoints c SET position = u.new \
           FROM unnest($2::text[], $3::smallint[], $4::bigint[], $5::bigint[]) AS u(projection, shard, old, new) \
          WHERE c.projection = u.projection AND c.topic = $1 AND c.shard = u.shard AND c.position = u.old",
    )
    .bind(topic.code())
    .bind(projections)
    .bind(shards)
    .bind(from)
    .bind(to)
    .execute(connection)
    .await?;
    Ok(updated.rows_affected() == moves.len() as u64)
}
