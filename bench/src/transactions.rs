//! How many write transactions PostgreSQL has begun.

use sqlx::{PgConnection, Row};

/// The next transaction id, which nothing is given by asking for it. Only what writes is given one.
pub async fn next(connection: &mut PgConnection) -> sqlx::Result<u64> {
    let row = sqlx::query("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").fetch_one(connection).await?;
    Ok(row.get::<String, _>(0).parse().unwrap_or(0))
}
