//! Forward-only SQL of the event store, the read models and shared state: three PostgreSQL schemas, each with its
//! own folder and its own table of applied migrations, so that each can move to a database of its own.

use std::hash::{DefaultHasher, Hash, Hasher};

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection, PgConnection, PgPool};

/// The schema of the event log, written by the crate `event-store` alone.
pub const LOG: &str = "log";
/// The schema of the live read models, written by the crate `projectors` alone.
pub const READ: &str = "read";
/// The schema of state that processes share and that is neither log nor read model.
pub const STATE: &str = "state";

static EVENT_STORE: Migrator = sqlx::migrate!("./event-store");
static READ_MODELS: Migrator = sqlx::migrate!("./read-models");
static SHARED_STATE: Migrator = sqlx::migrate!("./state");

/// Brings all three schemas up to date; several processes may call it at once, one works and the others wait.
///
/// # Errors
/// A migration that failed, or one applied earlier whose text has changed since.
pub async fn run(pool: &PgPool) -> Result<(), MigrateError> {
    // A connection of its own, since its search path changes and its session lock must not go back to the pool.
    let mut connection = pool.acquire().await.map_err(MigrateError::Execute)?.detach();
    for (schema, migrator) in [(LOG, &EVENT_STORE), (READ, &READ_MODELS), (STATE, &SHARED_STATE)] {
        apply(&mut connection, schema, migrator).await?;
    }
    connection.close().await.map_err(MigrateError::Execute)
}

/// Tells one set of migrations from another, for whoever keeps a migrated database to copy (the tests do).
#[must_use]
pub fn fingerprint() -> u64 {
    let mut hasher = DefaultHasher::new();
    for migration in [&EVENT_STORE, &READ_MODELS, &SHARED_STATE].into_iter().flat_map(Migrator::iter) {
        migration.checksum.hash(&mut hasher);
    }
    hasher.finish()
}

async fn apply(connection: &mut PgConnection, schema: &'static str, migrator: &Migrator) -> Result<(), MigrateError> {
    // Two processes that create one schema at once collide even with IF NOT EXISTS, so the lock comes first.
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "SET client_min_messages TO warning; BEGIN; SELECT pg_advisory_xact_lock(hashtext('parlance migrations'));
         CREATE SCHEMA IF NOT EXISTS {schema}; COMMIT; SET search_path TO {schema}",
    )))
    .execute(&mut *connection)
    .await
    .map_err(MigrateError::Execute)?;
    migrator.run(connection).await
}
