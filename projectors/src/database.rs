//! Connections that see one copy of the read models.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, PgPool};

/// What the database's list of connections calls ours.
pub(crate) const APPLICATION: &str = "parlance projectors";

/// A connection of its own, whose unqualified names are those of `schema`.
pub(crate) async fn connect(pool: &PgPool, schema: &str) -> Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = (*pool.connect_options()).clone();
    let options = options.application_name(APPLICATION).options([("search_path", schema)]);
    PgConnection::connect_with(&options).await
}

/// What PostgreSQL's bigint holds of a position or number, which all fit.
pub(crate) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A shard as its column holds it, which all fit.
pub(crate) fn smallint(shard: u16) -> i16 {
    i16::try_from(shard).unwrap_or(i16::MAX)
}
