//! How far each projection has applied each shard, in the table that moves with its rows.

use std::collections::{BTreeMap, HashMap};

use schemas::Topic;
use sqlx::{PgConnection, PgExecutor};

use crate::database::{bigint, smallint};
use crate::projection::Consumer;

/// Positions by shard.
pub(crate) type Places = BTreeMap<u16, u64>;

/// A projection's move in one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) projection: &'static str,
    pub(crate) shard: u16,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// The checkpoints of a consumer's projections of one topic in these shards; those that there were none of begin at 0.
pub(crate) async fn load(
    connection: &mut PgConnection,
    consumer: Consumer,
    projections: &[&'static str],
    topic: Topic,
    shards: &[u16],
) -> Result<HashMap<&'static str, Places>, sqlx::Error> {
    let numbers: Vec<i16> = shards.iter().copied().map(smallint).collect();
    let wanted = projections.len() * shards.len();
    let mut rows = select(connection, projections, topic, &numbers).await?;
    // Looked at first: an insert waits for whoever is moving the row that it collides with.
    if rows.len() < wanted {
        sqlx::query(
            "INSERT INTO read.checkpoints (projection, topic, shard, position, consumer) \
             SELECT projection, $2, shard, 0, $4 FROM unnest($1::text[]) AS projection, unnest($3::smallint[]) AS shard \
             ON CONFLICT DO NOTHING",
        )
        .bind(projections)
        .bind(topic.code())
        .bind(&numbers)
        .bind(consumer.name())
        .execute(&mut *connection)
        .await?;
        rows = select(connection, projections, topic, &numbers).await?;
    }
    let mut loaded: HashMap<&'static str, Places> = HashMap::new();
    for &name in projections {
        let own = rows.iter().filter(|(projection, ..)| projection == name);
        let places = own.map(|(_, shard, position)| (shard.cast_unsigned(), position.cast_unsigned()));
        loaded.insert(name, places.collect());
    }
    Ok(loaded)
}

async fn select(
    connection: &mut PgConnection,
    projections: &[&'static str],
    topic: Topic,
    shards: &[i16],
) -> Result<Vec<(String, i16, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT projection, shard, position FROM read.checkpoints \
          WHERE projection = ANY($1) AND topic = $2 AND shard = ANY($3)",
    )
    .bind(projections)
    .bind(topic.code())
    .bind(shards)
    .fetch_all(connection)
    .await
}

/// What all read models of a topic have applied of each shard.
pub(crate) async fn least(database: impl PgExecutor<'_>, topic: Topic) -> Result<Places, sqlx::Error> {
    let rows: Vec<(i16, i64)> = sqlx::query_as(
        "SELECT shard, min(position) FROM read.checkpoints WHERE topic = $1 AND consumer = $2 GROUP BY shard",
    )
    .bind(topic.code())
    .bind(Consumer::ReadModels.name())
    .fetch_all(database)
    .await?;
    Ok(rows.into_iter().map(|(shard, position)| (shard.cast_unsigned(), position.cast_unsigned())).collect())
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
