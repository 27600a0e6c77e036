//! Finds the records that a projection cannot apply, and puts them aside with all that follow under their keys.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use schemas::Record;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::database::{bigint, smallint};
use crate::projection::{ApplyError, Projection};

/// A record that was put aside.
#[derive(Debug)]
pub(crate) struct Parked {
    record: Arc<Record>,
    /// Why; `None` for those that follow another.
    error: Option<String>,
}

/// Applies a batch; a panic is the fault of a record.
pub(crate) async fn apply(
    connection: &mut PgConnection,
    projection: &dyn Projection,
    batch: &[Arc<Record>],
) -> Result<(), ApplyError> {
    let applied = AssertUnwindSafe(projection.apply(connection, batch)).catch_unwind().await;
    applied.unwrap_or_else(|_| Err(ApplyError::Poison("the projection panicked".to_owned())))
}

/// Applies what can be applied, within the transaction that the connection is in; `keys` are those put aside.
pub(crate) async fn apply_rest(
    connection: &mut PgConnection,
    projection: &dyn Projection,
    batch: Vec<Arc<Record>>,
    keys: &mut HashSet<Uuid>,
) -> Result<Vec<Parked>, ApplyError> {
    let mut parked = Vec::new();
    // Halves, the earlier ones on top.
    let mut parts = vec![batch];
    while let Some(part) = parts.pop() {
        let (mut part, behind): (Vec<_>, Vec<_>) = part.into_iter().partition(|record| !keys.contains(&record.key));
        parked.extend(behind.into_iter().map(|record| Parked { record, error: None }));
        if part.is_empty() {
            continue;
        }
        sqlx::raw_sql("SAVEPOINT part").execute(&mut *connection).await?;
        match apply(connection, projection, &part).await {
            Ok(()) => {
                sqlx::raw_sql("RELEASE part").execute(&mut *connection).await?;
            }
            Err(ApplyError::Poison(error)) => {
                sqlx::raw_sql("ROLLBACK TO part; RELEASE part").execute(&mut *connection).await?;
                if part.len() > 1 {
                    let later = part.split_off(part.len() / 2);
                    parts.extend([later, part]);
                    continue;
                }
                for record in part {
                    let (name, place, key) = (projection.describe().name, record.place(), record.key);
                    tracing::error!(projection = name, %place, %key, error, "{name} parks {key} from {place} on");
                    keys.insert(key);
                    parked.push(Parked { record, error: Some(error.clone()) });
                }
            }
            Err(error) => return Err(error),
        }
    }
    let (name, count) = (projection.describe().name, parked.len() as u64);
    metrics::counter!("parlance_projection_parked_total", "projection" => name).increment(count);
    Ok(parked)
}

/// The keys that a projection has put aside.
pub(crate) async fn load(connection: &mut PgConnection, projection: &str) -> Result<HashSet<Uuid>, sqlx::Error> {
    let keys: Vec<Uuid> = sqlx::query_scalar("SELECT DISTINCT key FROM read.parked WHERE projection = $1")
        .bind(projection)
        .fetch_all(connection)
        .await?;
    Ok(keys.into_iter().collect())
}

/// Writes down what was put aside.
pub(crate) async fn save(
    connection: &mut PgConnection,
    projection: &str,
    parked: &[Parked],
) -> Result<(), sqlx::Error> {
    if parked.is_empty() {
        return Ok(());
    }
    let topics: Vec<i16> = parked.iter().map(|parked| parked.record.topic.code()).collect();
    let shards: Vec<i16> = parked.iter().map(|parked| smallint(parked.record.shard)).collect();
    let positions: Vec<i64> = parked.iter().map(|parked| bigint(parked.record.position)).collect();
    let keys: Vec<Uuid> = parked.iter().map(|parked| parked.record.key).collect();
    let errors: Vec<&str> =
        parked.iter().map(|parked| parked.error.as_deref().unwrap_or("follows a parked event of its key")).collect();
    sqlx::query(
        "INSERT INTO read.parked (projection, topic, shard, position, key, error) \
         SELECT $1, * FROM unnest($2::smallint[], $3::smallint[], $4::bigint[], $5::uuid[], $6::text[])",
    )
    .bind(projection)
    .bind(topics)
    .bind(shards)
    .bind(positions)
    .bind(keys)
    .bind(errors)
    .execute(connection)
    .await?;
    Ok(())
}
