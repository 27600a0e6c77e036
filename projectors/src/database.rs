//! Connections that see one copy of the read models.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, PgPool};

/// The schema of the live read models.
pub(crate) const LIVE: &str = "read";
/// A runner's transaction waits for nobody but the database: where nothing is said for so long, the process was stopped
/// in it, and its locks keep others waiting.
const SILENCE: &str = "3s";

/// A connection of its own, whose unqualified names are those of `schema`.
pub(crate) async fn connect(pool: &PgPool, schema: &str) -> Result<PgConnection, sqlx::Error> {
    open(pool, "parlance rebuild", &[("search_path", schema)]).await
}

/// A runner's: to the live read models, under the name by which a successor ends it.
pub(crate) async fn connect_runner(pool: &PgPool, application: &str) -> Result<PgConnection, sqlx::Error> {
    let settings = [
        ("search_path", LIVE),
        ("idle_in_transaction_session_timeout", SILENCE),
        // A dozen statements, always the same: planning them anew costs more than most of them.
        ("plan_cache_mode", "force_generic_plan"),
    ];
    open(pool, application, &settings).await
}

async fn open(pool: &PgPool, application: &str, settings: &[(&str, &str)]) -> Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = (*pool.connect_options()).clone();
    let options = options.application_name(application).options(settings.iter().copied());
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
